"""Opaque cursors: positions in an account's history, or in a list ordered by id."""

import base64
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

Position = TypeVar("Position")

_MAX_VERSION: Final = 2**63 - 1
"""Largest version that databases and messages can store."""


class HistoryPosition(NamedTuple):
    """Position in an account's history.

    Attributes:
        version: number of the account's operation at this position. It grows by one with each operation.
        epoch: id of an uninterrupted sequence of operations of the ledger. A restore from an older backup begins
            another epoch. The id of the first epoch is the empty text.
    """

    version: int
    epoch: str


HISTORY_START: Final = HistoryPosition(0, "")
"""Position before the oldest operation of an account. It is valid in each epoch."""

ID_START: Final = UUID(int=0)
"""Position before all items of a list that is ordered by id: the smallest id."""

ID_END: Final = UUID(int=2**128 - 1)
"""Position after all items of a list that is ordered by id: the largest id."""


def encode_version(version: int, epoch: str = "") -> str:
    """Return the cursor of the operation that gave its account this version; see `HistoryPosition`.

    Args:
        version: version of the account.
        epoch: epoch of the ledger, a UUID; empty for the first epoch.
    """
    return _encode(f"v{version}.{epoch}" if epoch else f"v{version}")


def decode_position(cursor: str) -> HistoryPosition:
    """Return the position of a cursor.

    Raises:
        ValueError: `encode_version` did not produce this text.
    """
    position = _decode(cursor, _parse_position, lambda position: encode_version(*position))
    if not 0 <= position.version <= _MAX_VERSION:
        raise ValueError("must be a cursor from an earlier response")
    return position


def decode_version(cursor: str) -> int:
    """Return the version of a cursor, without its epoch.

    Raises:
        ValueError: `encode_version` did not produce this text.
    """
    return decode_position(cursor).version


def encode_id(id_: UUID) -> str:
    """Return the cursor of a list item."""
    return _encode(f"i{id_.hex}")


def decode_id(cursor: str) -> UUID:
    """Return the id of a cursor.

    Raises:
        ValueError: `encode_id` did not produce this text.
    """
    return _decode(cursor, UUID, encode_id)


def _parse_position(text: str) -> HistoryPosition:
    version, _, epoch = text.partition(".")
    return HistoryPosition(int(version), str(UUID(epoch)) if epoch else "")


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, parse: Callable[[str], Position], encode: Callable[[Position], str]) -> Position:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        position = parse(text[1:])
        if encode(position) == cursor:  # rejects cursors of the other kind and other spellings of the same position
            return position
    except ValueError:
        pass
    raise ValueError("must be a cursor from an earlier response")
