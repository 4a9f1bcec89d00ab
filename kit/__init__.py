"""Plumbing that every process shares: settings, logs, callers, gRPC, admin HTTP. No business word in it."""
