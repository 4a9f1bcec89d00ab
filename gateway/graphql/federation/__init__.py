"""Merges the subgraphs into one graph, and checks it for breaking changes."""
