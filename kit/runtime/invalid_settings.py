"""Messages about invalid settings: ours instead of those of pydantic. They say what is accepted and quote no value."""

from collections.abc import Callable, Mapping
from typing import Any, Final


def describe_setting_error(error: Mapping[str, Any]) -> str:
    """Return the name of the setting and the rule that its value breaks, as in "LOG_LEVEL: must be one of …".

    Args:
        error: one of the `errors()` of pydantic's ValidationError. An error without a place has only a message.
    """
    kind, context = error["type"], error.get("ctx", {})
    message = _MESSAGES[kind](context) if kind in _MESSAGES else FALLBACK
    name, *path = map(str, error["loc"] or ("",))
    place = ".".join((name.upper(), *path))
    return f"{place}: {message}" if place else message


def _fixed(message: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda _: message


FALLBACK: Final = "has an invalid value; the reference of the settings describes the valid ones"

_BOOL: Final = _fixed("must be true or false")
_INTEGER: Final = _fixed("must be a whole number")
_NUMBER: Final = _fixed("must be a number")
_OBJECT: Final = _fixed("must be a JSON object")
_PATH: Final = _fixed("must be a path")
_URL: Final = _fixed("must be a URL, such as https://host.example")

_MESSAGES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "bool_parsing": _BOOL,
    "bool_type": _BOOL,
    "decimal_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "dict_type": _OBJECT,
    "finite_number": _NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": lambda context: f"must be greater than {context['gt']}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "int_from_float": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": _INTEGER,
    "int_type": _INTEGER,
    "ip_any_network": _fixed("must be a network, such as 10.0.0.0/8"),
    "less_than": lambda context: f"must be less than {context['lt']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "list_type": _fixed('must be a JSON array, such as ["one", "two"]'),
    "literal_error": lambda context: f"must be one of {context['expected'].replace(chr(39), '').replace(' or ', ', ')}",
    "missing": _fixed("is required"),
    "model_attributes_type": _OBJECT,
    "model_type": _OBJECT,
    "path_type": _PATH,
    "string_too_short": lambda context: f"must have at least {context['min_length']} characters",
    "string_type": _fixed("must be a string"),
    "too_short": lambda context: f"must have at least {context['min_length']} characters",
    "url_parsing": _URL,
    "url_scheme": lambda context: f"must be a URL that begins with {context['expected_schemes'].replace(chr(39), '')}",
    "url_syntax_violation": _URL,
    "url_too_long": _URL,
    "url_type": _URL,
    "value_error": lambda context: str(context["error"]),  # raised by validators of ours
}
"""Messages by pydantic's type of error. A test compares them with the errors of all settings."""
