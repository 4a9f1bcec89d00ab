"""Loaders of documents and execution policies as the gateway builds them, for tests."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from gateway.graphql.execution.documents import Document, DocumentLoader, read_document
from gateway.graphql.execution.metrics import OperationNames
from gateway.graphql.execution.runner import ExecutionPolicy
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.execution.validation import Validator
from gateway.graphql.protection.limits import Limits
from gateway.http.stream_limits import StreamLimiter
from gateway.http.work_limits import WorkLimits

SCHEMA = build_merged_schema().core_schema
VALIDATOR = Validator(introspection=True, suggestions=True)


class InlineExecutor(Executor):
    """Executor that runs each function at once, in the caller's thread, so that its work can be counted."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:  # noqa: BLE001  as every executor
            future.set_exception(error)
        return future


def new_policy(
    limits: Limits | None = None,
    validator: Validator = VALIDATOR,
    executor: Executor | None = None,
    *,
    are_documents_trusted: bool = False,
    compile_operations: bool = True,
) -> ExecutionPolicy:
    """Return a policy with an empty cache."""
    limits = limits or Limits()
    return ExecutionPolicy(
        limits=limits,
        validator=validator,
        documents=DocumentLoader(limits, validator, executor, compile_operations=compile_operations),
        operation_names=OperationNames(None),
        streams=StreamLimiter(2),
        work=WorkLimits(),
        are_documents_trusted=are_documents_trusted,
    )


def load_document(text: str, limits: Limits | None = None, *, is_anonymous: bool = False) -> Document:
    """Load a document as the only one of its request."""
    limits = limits or Limits()
    return read_document(SCHEMA, text, limits, VALIDATOR, limits.new_budget(is_anonymous=is_anonymous))
