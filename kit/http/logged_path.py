"""Paths of requests as logs show them. Clients choose paths, so they are cut and masked."""

import re
from typing import Final

_MAX_LENGTH: Final = 256
_CARD_NUMBER: Final = re.compile(r"\d{13,}")
"""Digits that may be a card number. Ids contain no such sequence."""


def path_to_log(path: str) -> str:
    """Return the path without card numbers, cut to a limited length; `…` marks the cut."""
    masked = _CARD_NUMBER.sub("#", path)
    return masked if len(masked) <= _MAX_LENGTH else f"{masked[:_MAX_LENGTH]}…"
