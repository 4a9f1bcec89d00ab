"""Opaque cursors: a place in an account's history."""

import base64
import binascii


def encode(version: int) -> str:
    """The cursor of the operation that led to a version of its account."""
    return base64.urlsafe_b64encode(f"v{version}".encode()).decode().rstrip("=")


def decode(cursor: str) -> int:
    """The version behind a cursor.

    Raises:
        ValueError: no cursor of ours.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        kind, version = text[:1], int(text[1:])
    except (binascii.Error, ValueError):
        raise ValueError("must be a cursor from an earlier answer") from None
    if kind != "v" or version < 0 or encode(version) != cursor:
        raise ValueError("must be a cursor from an earlier answer")
    return version
