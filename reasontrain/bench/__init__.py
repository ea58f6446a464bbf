"""Speed and memory of reasontrain compared with a peer: the same work, machine and run.

Figures are ratios.
"""
