"""Our messages for invalid requests, instead of those of pydantic and FastAPI.

A message says what to send. It contains the rule and names from the API contract. It quotes no text of the request,
because the request may have card data or a password in the wrong place.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final, Self, get_args, get_origin

from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator

from kit.runtime.rule_messages import RULE_MESSAGES, fixed

IGNORED_PREFIXES: Final = ("_", "utm_")
"""Prefixes of query parameters that campaigns and caches add to links.

Such parameters are ignored; other unknown ones are refused.
"""

UNKNOWN_FIELD: Final = "extra_forbidden"
"""Pydantic's error type for a field that the model does not have."""


def _require_digits(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.removeprefix("-").isdigit()):
        raise ValueError("must be a whole number")
    return value


WholeNumber = Annotated[int, BeforeValidator(_require_digits)]
"""Query parameter of digits only. Pydantic alone also accepts `1_0` and `1.0`."""

QUERY: Final = "query"
"""Field of a violation that concerns the whole query string."""

MAX_PARAMETERS: Final = 100
"""Maximum number of query parameters in a request."""

_MAX_UNKNOWN: Final = 10
"""Maximum number of unknown query parameters that are compared with the known ones. A comparison takes 20 µs."""

_MIN_SIMILARITY: Final = 0.6
_FALLBACK: Final = "has an invalid value; the API reference describes the valid ones"


def body_model(route: object) -> type[BaseModel] | None:
    """Return the model of the body of a FastAPI route; None if the route has no body or is not one of FastAPI's."""
    body = route.body_field if isinstance(route, APIRoute) else None
    return _find_model(body.field_info.annotation) if body else None


def describe_error(
    error: Mapping[str, Any], pattern_messages: Mapping[str, str], body: type[BaseModel] | None
) -> tuple[str, str]:
    """Return the field and the message of one error of pydantic in a request.

    The message completes a sentence that begins with the field's name, for example "must be a UUID". The location
    `("body", "amount")` is the field `amount`; a body that is not an object is the field `body`. For an unknown field,
    the returned field is the object that contains it.

    Args:
        error: the error, with its place in the request in `loc`, as in FastAPI's `RequestValidationError`.
        pattern_messages: messages by regular expression.
        body: model of the request body; None if there is none.
    """
    kind, context, (place, *path) = error["type"], error.get("ctx", {}), error["loc"]
    if kind == UNKNOWN_FIELD:
        del path[-1]
        names = _field_names(body, path)
        message = f"has an unknown field: send only {', '.join(names)}" if names else "has an unknown field: remove it"
    elif kind == "string_pattern_mismatch":
        message = pattern_messages.get(context["pattern"], _FALLBACK)
    else:
        message = _MESSAGES[kind](context) if kind in _MESSAGES else _FALLBACK
    return ".".join(part for part in path if isinstance(part, str)) or str(place), message


def _field_names(model: type[BaseModel] | None, path: Sequence[str | int]) -> Sequence[str]:
    """Return the names of the fields that an object in the body may have; none if they are not known."""
    for part in path:
        fields = model.model_fields.items() if model else ()
        model = next((_find_model(field.annotation) for name, field in fields if (field.alias or name) == part), None)
    return [field.alias or name for name, field in model.model_fields.items()] if model else ()


def _find_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model that the annotation has, directly or in a union."""
    candidates = (annotation, *get_args(annotation))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


_MESSAGES: Final = {**RULE_MESSAGES, "int_type": fixed("must be a whole number, without quotes")}

DESCRIBED_TYPES: Final = frozenset({*_MESSAGES, "string_pattern_mismatch", UNKNOWN_FIELD})
"""Error types that have our own messages."""


class QueryParameters:
    """Query parameters of a route: finds the unknown and the repeated ones of a request, which FastAPI ignores."""

    def __init__(self, names: Sequence[str] = (), repeatable: Collection[str] = ()) -> None:
        """Args:
        names: names of the route's parameters.
        repeatable: those that are lists.
        """
        self._names = names
        self._repeatable = repeatable

    @classmethod
    def of_route(cls, route: APIRoute) -> Self:
        """Return the parameters of a route whose function has all of them itself, without dependencies."""
        fields = route.dependant.query_params
        repeatable = frozenset(each.alias for each in fields if _is_list(each.field_info.annotation))
        return cls(tuple(each.alias for each in fields), repeatable)

    def find_errors(self, names: Iterable[str]) -> dict[str, str]:
        """Return the messages about unknown and repeated parameters, by field.

        For an unknown name, the field is the most similar parameter of the route, or `query` if none is similar. The
        message does not quote the unknown name. Only the first ten unknown names are described.

        Args:
            names: names in the query string, one for each value.
        """
        seen = set[str]()
        errors: dict[str, str] = {}
        unknown = 0
        for name in names:
            if name in self._names:
                if name in seen and name not in self._repeatable:
                    errors[name] = "must be given once"
                seen.add(name)
            elif not name.startswith(IGNORED_PREFIXES) and unknown < _MAX_UNKNOWN:
                unknown += 1
                field, message = self._describe_unknown(name)
                errors.setdefault(field, message)
        return errors

    def _describe_unknown(self, name: str) -> tuple[str, str]:
        similar = _find_similar(name, self._names)
        if similar is None:
            allowed = f"use only {', '.join(self._names)}" if self._names else "this route has none"
            return QUERY, f"has an unknown parameter: {allowed}"
        repeat = ", once for each value" if similar in self._repeatable else ""
        return similar, f"is spelled differently in the query: write exactly {similar}{repeat}"


def _is_list(annotation: Any) -> bool:
    """Return whether the annotation is a list, or a list or None."""
    return any(get_origin(each) is list for each in (annotation, *get_args(annotation)))


def _find_similar(name: str, known: Collection[str]) -> str | None:
    """Return the known name that is similar: in another case, with brackets or underscores, or misspelled; or None."""
    by_folded = {each.casefold(): each for each in known}
    longest = 2 * max(map(len, known), default=0)
    folded = name[:longest].casefold().replace("_", "").replace("-", "").rstrip("[]")
    matches = get_close_matches(folded, by_folded, 1, _MIN_SIMILARITY)
    return by_folded[matches[0]] if matches else None
