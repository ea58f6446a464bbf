"""One training run: its loop, its parts built from a recipe, checkpoints and tracking."""
