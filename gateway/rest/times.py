"""Times in query parameters."""

import re
from typing import Annotated, Final

from pydantic import AwareDatetime, BeforeValidator

_DATE_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}")

_UNESCAPED_PLUS: Final = re.compile(_DATE_TIME.pattern + r"\S* \d{2}(:?\d{2})?")
"""A time whose offset lost its plus sign: in the query of a URL, `+` means a space."""


def _require_text_format(value: object) -> object:
    """Reject texts that are not a date and a time. Pydantic would also accept a number, as seconds since 1970."""
    if isinstance(value, str) and _UNESCAPED_PLUS.fullmatch(value):
        raise ValueError("must be a date and a time; in a URL, write the + of an offset as %2B, as in 12:00:00%2B03:00")
    if isinstance(value, str) and not _DATE_TIME.match(value):
        raise ValueError("must be a date and a time, such as 2026-11-21T12:00:00Z")
    return value


DateTime = Annotated[AwareDatetime, BeforeValidator(_require_text_format)]
