"""Our speed and memory beside a peer's: the same work, on the same machine, in one run; figures are
ratios.
"""
