"""Our messages about values that break a rule of a pydantic model, instead of those of pydantic.

A message says what is accepted, as in "must be a whole number", and quotes nothing of the value.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

RuleMessage = Callable[[Mapping[str, Any]], str]
"""Makes a message from the context of an error, the `ctx` of pydantic's ErrorDetails."""


def fixed(message: str) -> RuleMessage:
    """Return a function that makes the same message from every context."""
    return lambda _: message


def _one_of(context: Mapping[str, Any]) -> str:
    return f"must be one of {context['expected'].replace(chr(39), '').replace(' or ', ', ')}"


def _at_least(context: Mapping[str, Any]) -> str:
    return f"must have at least {_count(context['min_length'], context)}"


def _at_most(context: Mapping[str, Any]) -> str:
    return f"must have at most {_count(context['max_length'], context)}"


def _count(count: int, context: Mapping[str, Any]) -> str:
    """Return a number with its unit. Pydantic reports the length of a secret as the number of items of a `Value`."""
    unit = "character" if context.get("field_type", "Value") == "Value" else "item"
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


_BOOL: Final = fixed("must be true or false")
_DATE_TIME: Final = fixed("must be a date and a time, such as 2026-11-21T12:00:00Z")
_INTEGER: Final = fixed("must be a whole number")
_NUMBER: Final = fixed("must be a number")
_OBJECT: Final = fixed("must be a JSON object")
_URL: Final = fixed("must be a URL, such as https://host.example")
_UUID: Final = fixed("must be a UUID")

RULE_MESSAGES: Final[Mapping[str, RuleMessage]] = {
    "bool_parsing": _BOOL,
    "bool_type": _BOOL,
    "datetime_from_date_parsing": _DATE_TIME,
    "datetime_object_invalid": _DATE_TIME,
    "datetime_parsing": _DATE_TIME,
    "datetime_type": _DATE_TIME,
    "decimal_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "dict_type": _OBJECT,
    "enum": _one_of,
    "finite_number": _NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": lambda context: f"must be greater than {context['gt']}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "int_from_float": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": _INTEGER,
    "int_type": _INTEGER,
    "ip_any_network": fixed("must be a network, such as 10.0.0.0/8"),
    "json_invalid": fixed("must be JSON"),
    "less_than": lambda context: f"must be less than {context['lt']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "list_type": fixed("must be a list"),
    "literal_error": _one_of,
    "missing": fixed("is required"),
    "model_attributes_type": _OBJECT,
    "model_type": _OBJECT,
    "path_type": fixed("must be a path"),
    "string_too_long": _at_most,
    "string_too_short": _at_least,
    "string_type": fixed("must be a string"),
    "string_unicode": fixed("must be valid UTF-8"),
    "timezone_aware": fixed("must have an offset from UTC, such as Z"),
    "too_long": _at_most,
    "too_short": _at_least,
    "url_parsing": _URL,
    "url_scheme": lambda context: f"must be a URL that begins with {context['expected_schemes'].replace(chr(39), '')}",
    "url_syntax_violation": _URL,
    "url_too_long": _URL,
    "url_type": _URL,
    "uuid_parsing": _UUID,
    "uuid_type": _UUID,
    "value_error": lambda context: str(context["error"]),  # raised by our own validators
}
"""Messages by pydantic's type of error. Tests compare them with the errors of all settings and of all request models.
"""
