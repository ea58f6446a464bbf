"""Evaluation: suites -> answers -> accuracy, mean@k and pass@k, each with an interval."""
