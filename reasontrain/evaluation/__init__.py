"""Evaluation: suites -> answers -> accuracy, pass@k and maj@k, each with an interval."""
