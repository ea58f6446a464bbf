"""Evidence about tokens, as pure functions of [B, T] columns; what a selection rule adds up, and
what a report shows.
"""
