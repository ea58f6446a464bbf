"""The parts that a paper changes: advantages, filters, selection, objectives, aggregation."""
