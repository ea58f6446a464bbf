"""The loop's learner, sampler and grader as groups of Ray actors; Ray is imported here and nowhere
else.
"""
