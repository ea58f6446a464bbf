"""Learner, sampler and grader as groups of Ray actors; the only package that imports Ray."""
