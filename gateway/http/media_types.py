"""Media types of request bodies."""

from typing import Final

JSON: Final = "application/json"
_UTF_8: Final = frozenset({"utf-8", "utf8"})


def is_utf8_json(content_type: str) -> bool:
    """Return whether a `Content-Type` is JSON in UTF-8, the only encoding of JSON in requests (RFC 8259, 8.1).

    Args:
        content_type: the header's value. Repeated headers, joined by commas, are never JSON, because they may differ.
    """
    if content_type == JSON:
        return True
    media_type, *parameters = content_type.split(";")
    if media_type.strip().lower() != JSON or "," in content_type:
        return False
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF_8:
            return False
    return True
