"""Hostile strings, such as NUL, control characters and long texts, in each string field of a service's requests."""

from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

HOSTILE_STRINGS = ("\x00", "a\x00b", "\x1b[2J", "\u202e\ufffe", "\U0010ffff", "x" * 100_000, "'; --", "%00", "\\", "\n")
UNEXPECTED = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}
_ID = "123e4567-e89b-12d3-a456-426614174000"


def hostile_requests(service: ServiceDescriptor) -> Iterator[tuple[str, str, Message]]:
    """Yield method name, field path and request for each combination of a string field and a hostile string."""
    for method in service.methods:
        for path in _string_paths(method.input_type):
            for text in HOSTILE_STRINGS:
                request = GetMessageClass(method.input_type)()
                _fill(request)
                _set(request, path, text)
                yield method.name, ".".join(field.name for field in path), request


async def find_unexpected_errors(stub: Any, service: ServiceDescriptor, metadata: Any) -> list[str]:
    """Make all hostile requests, and describe those that fail with INTERNAL, UNKNOWN or UNAVAILABLE."""
    found = []
    for method, path, request in hostile_requests(service):
        try:
            call = getattr(stub, method)(request, metadata=metadata, timeout=5)
            if service.methods_by_name[method].server_streaming:
                await call.read()
                call.cancel()
            else:
                await call
        except grpc.aio.AioRpcError as error:
            if error.code() in UNEXPECTED:
                found.append(f"{method} {path}: {error.code().name} {error.details()}")
    return found


def _string_paths(message: Descriptor, depth: int = 4) -> Iterator[tuple[FieldDescriptor, ...]]:
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING or _is_map(field):
            yield (field,)
        elif field.message_type is not None and depth:
            for rest in _string_paths(field.message_type, depth - 1):
                yield (field, *rest)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _fill(message: Message) -> None:
    """Set the string fields of the request, not those of nested messages, to plausible values."""
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            setattr(
                message, field.name, _ID if field.name.endswith("id") else "RUB" if "currency" in field.name else "k"
            )


def _set(message: Any, path: tuple[FieldDescriptor, ...], text: str) -> None:
    for field in path[:-1]:
        target = getattr(message, field.name)
        message = target.add() if field.is_repeated else target
    last = path[-1]
    if _is_map(last):
        getattr(message, last.name)[text]  # reading a missing key of a protobuf map adds the entry
    elif last.is_repeated:
        getattr(message, last.name).append(text)
    else:
        setattr(message, last.name, text)
