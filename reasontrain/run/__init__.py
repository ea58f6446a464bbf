"""A training run: built from a recipe; its loop, checkpoints, data sets, progress, tracking."""
