"""Numbers about a step or a run: timing, throughput, subsampling, accuracy, environment."""
