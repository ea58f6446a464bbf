"""Scores: pure functions of [B, T] evidence that selection rules and reports share."""
