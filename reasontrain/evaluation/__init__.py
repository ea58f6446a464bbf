"""Suites to answers to accuracy, mean@k and pass@k, each with an interval."""
