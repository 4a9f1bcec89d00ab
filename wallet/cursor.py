"""Opaque cursors: a place in an account's history, or in a list of what has ids."""

import base64
from collections.abc import Callable
from typing import Final, TypeVar
from uuid import UUID

Position = TypeVar("Position")

_MAX_VERSION: Final = 2**63 - 1
"""As databases and messages hold them."""


def encode_version(version: int) -> str:
    """The cursor of the operation that led to a version of its account."""
    return _encode(f"v{version}")


def decode_version(cursor: str) -> int:
    """The version behind a cursor.

    Raises:
        ValueError: no cursor of ours.
    """
    version = _decode(cursor, int, encode_version)
    if not 0 <= version <= _MAX_VERSION:
        raise ValueError("must be a cursor from an earlier answer")
    return version


def encode_id(id_: UUID) -> str:
    """The cursor of a thing in a list, by its id."""
    return _encode(f"i{id_.hex}")


def decode_id(cursor: str) -> UUID:
    """The id behind a cursor.

    Raises:
        ValueError: no cursor of ours.
    """
    return _decode(cursor, UUID, encode_id)


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, parse: Callable[[str], Position], encode: Callable[[Position], str]) -> Position:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        place = parse(text[1:])
        if encode(place) == cursor:  # of this kind, and written in the one way that we write it
            return place
    except ValueError:
        pass
    raise ValueError("must be a cursor from an earlier answer")
