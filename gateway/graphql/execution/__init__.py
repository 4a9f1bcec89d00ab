"""Execution of operations: schemas, document cache, runner, metrics, and the uses of library internals."""
