"""The header `Idempotency-Key`."""

from typing import Final

from starlette.datastructures import Headers

from wallet.idempotency_key import IdempotencyKey, parse_idempotency_key
from wallet.inputs import FieldParser

_NAME: Final = "Idempotency-Key"
_WHITE_SPACE: Final = " \t"


def read_idempotency_key(headers: Headers, fields: FieldParser) -> IdempotencyKey:
    """Return the key of a request. The request must have the header exactly once."""
    return fields.parse(_NAME, _parse_lines, headers.getlist(_NAME))


def _parse_lines(lines: list[str]) -> IdempotencyKey:
    if not lines:
        raise ValueError("is required; choose a new key for each intended effect")
    if len(lines) > 1:
        raise ValueError(f"must be sent once; the request has it {len(lines)} times")
    return parse_idempotency_key(lines[0].strip(_WHITE_SPACE))  # not part of the value (RFC 9110, 5.5)
