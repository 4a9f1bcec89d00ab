"""Executes operations: schemas, document cache, runner, metrics. Uses internals of Strawberry and graphql-core."""
