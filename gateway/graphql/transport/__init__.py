"""Serves the graph over HTTP, server-sent events and WebSocket."""
