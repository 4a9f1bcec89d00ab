"""Compiled GraphQL operations: an operation is compiled to a plan once, and executed many times.

The package uses the public API of graphql-core only. Results, errors and calls of resolvers are graphql-core's.
"""

from gateway.graphql.execution.compiled.compiler import Options
from gateway.graphql.execution.compiled.lists import LongLists
from gateway.graphql.execution.compiled.not_compilable import NotCompilable
from gateway.graphql.execution.compiled.operation import CompiledOperation, OperationCompiler
from gateway.graphql.execution.compiled.sources import SourceResolver

__all__ = ["CompiledOperation", "LongLists", "NotCompilable", "OperationCompiler", "Options", "SourceResolver"]
