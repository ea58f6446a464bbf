"""Measurements of a run: accuracy with intervals, timing, throughput, subsampling, environment."""
