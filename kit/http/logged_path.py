"""Paths of requests as logs show them. Clients choose paths, so they are cut and masked."""

import re
from typing import Final

from kit.telemetry.card_numbers import mask_card_numbers

_MAX_LENGTH: Final = 256
_CARD_NUMBER: Final = re.compile(r"\d{13,}")
"""Digits that may be a card number. Ids contain no such sequence."""


def path_to_log(path: str) -> str:
    """Return the path without card numbers, cut to a limited length; `…` marks the cut."""
    masked = _CARD_NUMBER.sub("#", path)
    if len(masked) <= _MAX_LENGTH:
        return masked  # the log masks card numbers in groups
    longer = masked[: 2 * _MAX_LENGTH].encode(errors="surrogatepass")  # a card number at the cut is complete
    return f"{mask_card_numbers(longer).decode(errors='surrogatepass')[:_MAX_LENGTH]}…"
