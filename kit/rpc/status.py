"""Errors as gRPC statuses with google.rpc details, and back."""

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from wallet.errors import (
    ERRORS_BY_REASON,
    DeadlineExceeded,
    FieldViolation,
    InternalError,
    InvalidInput,
    RateLimited,
    ResourceExhausted,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
    WalletError,
)

DOMAIN = "wallet"
"""`ErrorInfo.domain` of every error that is ours."""

RETRY_AFTER_SECONDS = 1
"""When to try again what was refused because there was too much of it."""


def error_to_status(error: WalletError) -> status_pb2.Status:
    """The error with its machine name, its data and, for bad input, the fields; for too much work, when to retry."""
    status = status_pb2.Status(code=error.code.value, message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata())
    status.details.add().Pack(info)
    if isinstance(error, InvalidInput):
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.message)
        status.details.add().Pack(bad_request)
    if isinstance(error, ResourceExhausted | TooManyAttempts | RateLimited):
        hint = error_details_pb2.RetryInfo()
        said = getattr(error, "retry_after_seconds", "")
        hint.retry_delay.FromSeconds(int(said) if said.isdecimal() else RETRY_AFTER_SECONDS)
        status.details.add().Pack(hint)
    return status


def error_from_status(status: status_pb2.Status) -> WalletError:
    """The error that `error_to_status` made the status of; InternalError for a status that is not ours."""
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad_request.DESCRIPTOR):
            detail.Unpack(bad_request)
    cls = ERRORS_BY_REASON.get(info.reason) if info.domain == DOMAIN else None
    if cls is None:
        return InternalError()
    if issubclass(cls, InvalidInput):
        fields = bad_request.field_violations
        return InvalidInput(tuple(FieldViolation(field.field, field.description) for field in fields))
    return cls.from_metadata(dict(info.metadata))


def error_from_rpc(error: grpc.aio.AioRpcError, what: str) -> WalletError:
    """The typed error behind a failed call; a failure of the way there is one of `what`."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has all of a Call that is read
    if status is not None:
        return error_from_status(status)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Unavailable(what)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(what)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ResourceExhausted()
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated()
        case _:
            return InternalError()


def code_name(status: status_pb2.Status) -> str:
    """The canonical name of a status's code, for logs and metrics."""
    return str(code_pb2.Code.Name(code_pb2.Code.ValueType(status.code)))
