"""Protects the graph: limits, cost, trusted documents, access rules."""
