"""Conversion between errors and gRPC statuses with google.rpc details."""

import re
from collections.abc import Callable
from typing import Final

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from wallet.errors import (
    ERRORS_BY_REASON,
    TRY_AGAIN,
    TRY_AGAIN_WITH_KEY,
    DeadlineExceeded,
    FieldViolation,
    InternalError,
    InvalidInput,
    RateLimited,
    ResourceExhausted,
    TooManyAttempts,
    TopUpDeclinesExceeded,
    Unauthenticated,
    Unavailable,
    WalletError,
)

DOMAIN = "wallet"
"""`ErrorInfo.domain` of our errors."""

_KEY = "idempotency_key"
_IS_REPLAY = "is_replay"
"""Metadata key that marks a replayed error."""

_CAPITAL: Final = re.compile("(?<=[a-z0-9])[A-Z]")
_UNDERSCORE: Final = re.compile("(?<=[a-z0-9])_([a-z])")

RETRY_AFTER_SECONDS = 1
"""Default retry delay of errors about exceeded limits."""


def error_to_status(error: WalletError) -> status_pb2.Status:
    """Return the status of an error.

    Its details are ErrorInfo (reason and data), BadRequest (fields of invalid input) and RetryInfo (exceeded limits).
    Fields have the names of the protos, such as `sender_id`.
    """
    if isinstance(error, InvalidInput):
        renamed = _rename_fields(error, _to_snake_case)
        renamed.is_replay = error.is_replay
        error = renamed
    status = status_pb2.Status(code=error.code.value, message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata())
    if error.is_replay:
        info.metadata[_IS_REPLAY] = "true"
    status.details.add().Pack(info)
    if isinstance(error, InvalidInput):
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.message)
        status.details.add().Pack(bad_request)
    if isinstance(error, ResourceExhausted | TooManyAttempts | RateLimited | TopUpDeclinesExceeded):
        hint = error_details_pb2.RetryInfo()
        seconds = getattr(error, "retry_after_seconds", "")
        hint.retry_delay.FromSeconds(int(seconds) if seconds.isdecimal() else RETRY_AFTER_SECONDS)
        status.details.add().Pack(hint)
    return status


def _rename_fields(error: InvalidInput, rename: Callable[[str], str]) -> InvalidInput:
    return InvalidInput(tuple(FieldViolation(rename(each.field), each.message) for each in error.violations))


def _to_snake_case(name: str) -> str:
    """Return `sender_id` for `senderId`."""
    return _CAPITAL.sub(lambda letter: f"_{letter[0].lower()}", name)


def _to_camel_case(name: str) -> str:
    """Return `senderId` for `sender_id`. Servers of earlier releases send `senderId`, which stays."""
    return _UNDERSCORE.sub(lambda letter: letter[1].upper(), name)


def fit_to_call(error: WalletError, request: object) -> WalletError:
    """Return the error with the next step that its message recommends for this call.

    The next step of Unavailable and DeadlineExceeded is to try again, with the same idempotency key if there is one.

    Args:
        error: the error; it is changed.
        request: request message of the call.
    """
    if isinstance(error, Unavailable | DeadlineExceeded):
        error.next_step = TRY_AGAIN_WITH_KEY if isinstance(request, Message) and _has_key(request) else TRY_AGAIN
    return error


def _has_key(request: Message) -> bool:
    """Return whether the request's type has an idempotency key, or a field of messages that have one, as in a batch."""
    orders = (each.message_type for each in request.DESCRIPTOR.fields if each.message_type is not None)
    return any(_KEY in each.fields_by_name for each in (request.DESCRIPTOR, *orders))


def error_from_status(status: status_pb2.Status) -> WalletError:
    """Return the error of a status that `error_to_status` built; InternalError for any other status."""
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
        violations = tuple(FieldViolation(field.field, field.description) for field in fields)
        return _rename_fields(InvalidInput(violations), _to_camel_case)
    error = cls.from_metadata(dict(info.metadata))
    error.is_replay = _IS_REPLAY in info.metadata
    return error


def error_from_rpc(error: grpc.aio.AioRpcError, service: str) -> WalletError:
    """Return the typed error of a failed call.

    Args:
        error: error that gRPC raised.
        service: name of the called service, for the message of an error without details.
    """
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has the methods of Call that are used
    if status is not None:
        return error_from_status(status)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Unavailable(service)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(service)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ResourceExhausted()
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated()
        case _:
            return InternalError()


def code_name(status: status_pb2.Status) -> str:
    """Return the canonical name of the status code, for logs and metrics."""
    return str(code_pb2.Code.Name(code_pb2.Code.ValueType(status.code)))
