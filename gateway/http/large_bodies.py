"""Limits of request bodies, and of the larger ones with lists of transfers."""

from typing import Final

DEFAULT_BODY_LIMIT_BYTES: Final = 64 * 1024
LARGE_BODY_LIMIT_BYTES: Final = 1024 * 1024
"""Maximum size of a body with a list of transfers, for a verified caller."""

_MAX_SEPARATORS: Final = 32 * 1024
"""Commas, and colons, in the JSON of a large body.

They bound the number of its values: 1,000 transfers with 16 metadata each have 25,000.
"""


def has_too_many_values(json: bytes) -> bool:
    """Return whether a large JSON body may have more values than a list of transfers needs.

    A body within the default limit has not. Each value takes time and memory, however short it is.
    """
    if len(json) <= DEFAULT_BODY_LIMIT_BYTES:
        return False
    return json.count(b",") > _MAX_SEPARATORS or json.count(b":") > _MAX_SEPARATORS
