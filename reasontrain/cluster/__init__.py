"""Learner, sampler and grader as groups of Ray actors; only this package imports Ray."""
