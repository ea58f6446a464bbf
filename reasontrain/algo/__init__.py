"""Algorithms: advantages, rollout filters, token selection, objectives and loss aggregation."""
