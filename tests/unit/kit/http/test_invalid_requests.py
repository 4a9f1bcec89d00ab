"""Messages for invalid requests: each error that the models of the contracts can raise has a message of ours."""

from collections.abc import Iterator, Mapping
from functools import partial
from inspect import signature
from typing import Annotated, Any
from urllib.parse import parse_qsl
from uuid import UUID

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from starlette.routing import BaseRoute, Route

from gateway.rest import invalid_fields, rest_routes
from gateway.rest.direct_route import DirectRoute
from kit.http import invalid_requests
from kit.http.invalid_requests import DESCRIBED_TYPES, QueryParameters, body_model, describe_error
from sandbox import api as sandbox

ABSENT: Any = None
"""Placeholder for the objects that handle valid requests."""

REST_ROUTES = rest_routes(*[ABSENT] * len(signature(rest_routes).parameters))
SANDBOX_ROUTES = [each for each in sandbox._routes(ABSENT).routes if isinstance(each, APIRoute)]


def adapters(route: BaseRoute) -> Iterator[tuple[str, TypeAdapter[Any]]]:
    """Yield the validators of a route's parameters and of its body, with their names."""
    if isinstance(route, DirectRoute):
        if route.body is not None:
            yield f"{route.path} body", TypeAdapter(route.body)
        yield f"{route.path} id", TypeAdapter(UUID)
        return
    assert isinstance(route, APIRoute)
    dependant = route.dependant
    for fields in (dependant.path_params, dependant.query_params, dependant.header_params, dependant.body_params):
        for field in fields:
            annotation: Any = Annotated[field.field_info.annotation, field.field_info]
            yield f"{route.path} {field.alias}", TypeAdapter(annotation)


VALIDATORS = dict(  # one validator for each name
    sorted(entry for route in (*REST_ROUTES, *SANDBOX_ROUTES) for entry in adapters(route))
)


class ErrorTypes:
    """Finds the types of errors that a pydantic core schema can raise. An unknown kind of node fails the test."""

    CONSTRAINTS: Mapping[str, Mapping[str, str]] = {
        "str": {
            "min_length": "string_too_short",
            "max_length": "string_too_long",
            "pattern": "string_pattern_mismatch",
        },
        "int": {"ge": "greater_than_equal", "le": "less_than_equal"},
        "list": {"min_length": "too_short", "max_length": "too_long"},
        "dict": {"max_length": "too_long"},
        "datetime": {"tz_constraint": "timezone_aware"},
    }
    OWN: Mapping[str, tuple[str, ...]] = {
        "str": ("string_type", "string_unicode"),
        "int": ("int_type", "int_parsing", "int_parsing_size", "int_from_float", "finite_number"),
        "list": ("list_type",),
        "bool": ("bool_type",),
        "dict": ("dict_type",),
        "enum": ("enum",),
        "uuid": ("uuid_type", "uuid_parsing"),
        "datetime": ("datetime_type", "datetime_parsing", "datetime_from_date_parsing", "datetime_object_invalid"),
        "model": ("model_type", "model_attributes_type"),
        "model-fields": (),
        "model-field": ("missing",),
        "default": (),
        "nullable": (),
    }
    IGNORED_KEYS = frozenset(
        {
            *("type", "metadata", "serialization", "ref", "strict", "microseconds_precision", "sub_type", "members"),
            *("cls", "config", "root_model", "custom_init", "model_name", "computed_fields", "validation_alias"),
            *("serialization_alias", "default", "lax", "expected", "missing", "function", "extras_schema"),
            *("validate_by_name", "post_init", "root_schema", "frozen", "coerce_numbers_to_str", "definitions"),
        }
    )
    BOUNDS: Mapping[str, str] = {
        "greater_than_or_equal_validator": "greater_than_equal",
        "less_than_or_equal_validator": "less_than_equal",
        "max_length_validator": "too_long",
        "min_length_validator": "too_short",
    }

    def find(self, node: Mapping[str, Any]) -> Iterator[str]:
        kind = node["type"]
        if kind == "lax-or-strict":
            yield from self.find(node["lax_schema"])
        elif kind == "json-or-python":
            yield from self.find(node["json_schema"])
            yield from self.find(node["python_schema"])
        elif kind == "union" and "custom_error_type" in node:
            yield node["custom_error_type"]
        elif kind.startswith("function-"):
            yield self._function_error(node)
            if "schema" in node:
                yield from self.find(node["schema"])
        else:
            yield from self._known(kind, node)

    def _known(self, kind: str, node: Mapping[str, Any]) -> Iterator[str]:
        assert kind in self.OWN, f"the table of this test lacks the kind {kind}: {sorted(node)}"
        yield from self.OWN[kind]
        constraints = self.CONSTRAINTS.get(kind, {})
        yield from (error for key, error in constraints.items() if node.get(key) is not None)
        if kind == "model" and (node.get("config") or {}).get("extra_fields_behavior") == "forbid":
            yield "extra_forbidden"
        for key, child in node.items():
            if key == "fields":
                for field in child.values():
                    yield from self.find(field)
            elif key in {"schema", "items_schema", "keys_schema", "values_schema"}:
                yield from self.find(child)
            else:
                assert key in self.IGNORED_KEYS | constraints.keys(), f"unknown key {key} of {kind}"

    def _function_error(self, node: Mapping[str, Any]) -> str:
        """Return the error of a validator function: one of pydantic's own for a bound, else a ValueError of ours."""
        function = node["function"]["function"]
        name = getattr(function.func if isinstance(function, partial) else function, "__name__", "")
        return self.BOUNDS.get(name, "value_error")


def patterns(node: Any) -> Iterator[str]:
    """Yield the regular expressions of a core schema."""
    if isinstance(node, Mapping):
        if node.get("type") == "str" and "pattern" in node:
            yield node["pattern"]
        for child in node.values():
            yield from patterns(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from patterns(child)


class TestErrorTypes:
    @pytest.mark.parametrize("name", VALIDATORS)
    def test_every_error_that_a_model_can_raise_has_a_message(self, name: str) -> None:
        found = set(ErrorTypes().find(VALIDATORS[name].core_schema))
        assert found
        assert found <= DESCRIBED_TYPES

    @pytest.mark.parametrize("name", VALIDATORS)
    @given(
        value=st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False)
            | st.text()
            | st.sampled_from(
                ["2026-01-01", "2026-01-01T00:00:00", "123e4567-e89b-12d3-a456-426614174000", "1" * 5000]
            ),
            lambda children: (
                st.lists(children, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["amount", "currency", "card", "number", "cvv", "username", "password", "x"]),
                    children,
                    max_size=4,
                )
            ),
            max_leaves=8,
        )
    )
    def test_every_error_of_a_value_is_among_the_found_types(self, name: str, value: Any) -> None:
        try:
            VALIDATORS[name].validate_python(value, from_attributes=True)
        except ValidationError as invalid:
            types = {each["type"] for each in invalid.errors()}
            assert types <= set(ErrorTypes().find(VALIDATORS[name].core_schema))

    @pytest.mark.parametrize(
        ("routes", "messages"),
        [
            (REST_ROUTES, invalid_fields.PATTERN_MESSAGES),
            (SANDBOX_ROUTES, sandbox.PATTERN_MESSAGES),
        ],
        ids=["gateway", "sandbox"],
    )
    def test_every_regular_expression_has_a_message(self, routes: list[BaseRoute], messages: dict[str, str]) -> None:
        found = {
            pattern for route in routes for _, adapter in adapters(route) for pattern in patterns(adapter.core_schema)
        }
        assert found == messages.keys()


def find_route(method: str, path: str) -> Route:
    (route,) = (
        each for each in REST_ROUTES if isinstance(each, Route) and each.path == path and method in (each.methods or ())
    )
    return route


def find_errors(query: str, path: str = "/accounts/{accountId}/operations") -> dict[str, str]:
    route = find_route("GET", path)
    assert isinstance(route, APIRoute)
    return QueryParameters.of_route(route).find_errors(name for name, _ in parse_qsl(query, keep_blank_values=True))


class TestQueryParameters:
    @pytest.mark.parametrize(
        "query", ["", "type=TOP_UP&type=TRANSFER&limit=1&from=x&to=y", "utm_source=a&_=1&_=2&utm_x"]
    )
    def test_known_and_ignored_parameters_have_no_error(self, query: str) -> None:
        assert find_errors(query) == {}

    @pytest.mark.parametrize(
        ("query", "field", "message"),
        [
            ("type[]=TOP_UP", "type", "write exactly type, once for each value"),
            ("Type=TOP_UP", "type", "write exactly type, once for each value"),
            ("minamount=500", "minAmount", "write exactly minAmount"),
            ("min_amount=500", "minAmount", "write exactly minAmount"),
            ("counterparty_id=x", "counterpartyId", "write exactly counterpartyId"),
            ("limt=1", "limit", "write exactly limit"),
            ("limit=1&limit=1", "limit", "must be given once"),
        ],
    )
    def test_error_names_the_parameter_of_the_contract(self, query: str, field: str, message: str) -> None:
        errors = find_errors(query)
        assert list(errors) == [field]
        assert errors[field].endswith(message)

    @pytest.mark.parametrize("query", ["4242424242424242=1", "x", "=", "%00=1", "a" * 100_000])
    def test_message_about_an_unknown_name_does_not_repeat_it_and_lists_the_allowed_names(self, query: str) -> None:
        names = (
            "limit, after, before, type, direction, counterpartyId, minAmount, maxAmount, from, to, reference, "
            "metadataKey, metadataValue, text"
        )
        assert find_errors(query) == {"query": f"has an unknown parameter: use only {names}"}

    def test_only_ten_unknown_names_are_compared_with_the_known_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared = list[str]()

        def record(name: str, *_: object) -> list[str]:
            compared.append(name)
            return []

        monkeypatch.setattr(invalid_requests, "get_close_matches", record)
        errors = find_errors("&".join(f"x{number}" for number in range(1_000)) + "&limit=1&limit=2")
        assert errors.keys() == {"query", "limit"}
        assert len(compared) == 10

    def test_route_without_parameters_refuses_all(self) -> None:
        assert find_errors("limit=1", "/me") == {"query": "has an unknown parameter: this route has none"}


class TestMessages:
    @pytest.mark.parametrize(
        ("path", "body", "expected"),
        [
            ("/accounts/{accountId}/transfers", {"amount": "1"}, ("recipientId", "is required")),
            ("/accounts/{accountId}/transfers", [], ("body", "must be a JSON object")),
            ("/auth/login", {"username": "alice", "password": "x"}, ("password", "must have at least 12 characters")),
            ("/auth/refresh", {"refreshToken": ""}, ("refreshToken", "must have at least 1 character")),
            (
                "/accounts/{accountId}/topup",
                {"amount": "1", "card": {"number": "4", "expiryMonth": 13, "expiryYear": 2031, "cvv": "1"}},
                ("card.expiryMonth", "must be at most 12"),
            ),
            (
                "/accounts/{accountId}/topup",
                {"amount": "1", "card": {"number": "4", "expiryMonth": 1, "expiryYear": 2031, "cvv": "1", "4242": 1}},
                ("card", "has an unknown field: send only number, expiryMonth, expiryYear, cvv"),
            ),
            ("/accounts", {"4242424242424242": 1}, ("body", "has an unknown field: send only currency")),
        ],
    )
    def test_message_names_the_field_and_the_rule(self, path: str, body: Any, expected: tuple[str, str]) -> None:
        route = find_route("POST", path)
        model = route.body if isinstance(route, DirectRoute) else body_model(route)
        assert model is not None
        with pytest.raises(ValidationError) as raised:
            TypeAdapter(model).validate_python(body, from_attributes=True)
        errors = [{**each, "loc": ("body", *each["loc"])} for each in raised.value.errors()]
        assert [describe_error(each, invalid_fields.PATTERN_MESSAGES, model) for each in errors][:1] == [expected]

    def test_unmapped_error_does_not_show_the_message_of_the_library(self) -> None:
        error = {"type": "new_in_pydantic", "loc": ("body", "x"), "msg": "Input should be new"}
        assert describe_error(error, {}, None) == (
            "x",
            "has an invalid value; the API reference describes the valid ones",
        )
