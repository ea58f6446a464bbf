"""Learner, sampler and grader as groups of Ray actors; Ray is imported in this package only."""
