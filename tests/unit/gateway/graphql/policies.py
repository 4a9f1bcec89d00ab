"""Document caches and execution policies as the gateway builds them, for tests."""

from gateway.graphql.execution.documents import Document, DocumentCache
from gateway.graphql.execution.metrics import OperationNames
from gateway.graphql.execution.runner import ExecutionPolicy
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.execution.validation import Validator
from gateway.graphql.protection.limits import Limits
from gateway.http.stream_limits import StreamLimiter

SCHEMA = build_merged_schema().core_schema
VALIDATOR = Validator(introspection=True, suggestions=True)


def new_policy(limits: Limits | None = None, validator: Validator = VALIDATOR) -> ExecutionPolicy:
    """Return a policy with an empty cache."""
    limits = limits or Limits()
    return ExecutionPolicy(
        limits=limits,
        validator=validator,
        documents=DocumentCache(limits, validator),
        operation_names=OperationNames(None),
        streams=StreamLimiter(2),
    )


def load_document(text: str, limits: Limits | None = None, *, is_anonymous: bool = False) -> Document:
    """Load a document as the only one of its request."""
    limits = limits or Limits()
    return DocumentCache(limits, VALIDATOR).load(SCHEMA, text, limits.new_budget(is_anonymous=is_anonymous))
