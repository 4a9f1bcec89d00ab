"""Our messages about invalid settings, instead of those of pydantic. They say what is accepted and quote no value."""

from collections.abc import Mapping
from typing import Any, Final

from kit.runtime.rule_messages import RULE_MESSAGES, fixed

FALLBACK: Final = "has an invalid value; the reference of the settings describes the valid ones"

_MESSAGES: Final = {**RULE_MESSAGES, "list_type": fixed('must be a JSON array, such as ["one", "two"]')}


def describe_setting_error(error: Mapping[str, Any]) -> str:
    """Return the name of the setting and the rule that its value breaks, as in "LOG_LEVEL: must be one of …".

    Args:
        error: one of the `errors()` of pydantic's ValidationError. For an error without a location, only the message is
            returned.
    """
    kind, context = error["type"], error.get("ctx", {})
    message = _MESSAGES[kind](context) if kind in _MESSAGES else FALLBACK
    name, *path = map(str, error["loc"] or ("",))
    place = ".".join((name.upper(), *path))
    return f"{place}: {message}" if place else message
