"""What is done before a run: solutions sampled and graded, pairs chosen, models tuned, tokens
scored; each stage once.
"""

from reasontrain.stages.run import done, link

__all__ = ["done", "link"]
