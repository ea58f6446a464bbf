"""Speed and memory of reasontrain beside a peer: the same work on the same machine in one run.

Figures are ratios.
"""
