"""Benchmarks of speed and memory beside a peer: the same work on the same machine, as ratios."""
