"""Mapping of errors to HTTP problems and GraphQL errors."""

import pytest
from graphql import GraphQLError, parse
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    STATUS,
    STATUS_OVERRIDES,
    format_graphql_error,
    is_unexpected,
    problem_from_error,
    redact_digits,
)
from kit.rpc import request_context
from wallet.errors import (
    ERRORS_BY_REASON,
    Code,
    FieldViolation,
    InsufficientFunds,
    InternalError,
    InvalidInput,
    TopUpLimitExceeded,
    Unavailable,
    WalletError,
)


@pytest.fixture(autouse=True)
def request_id() -> None:
    request_context.current_request.set(request_context.RequestContext("the-request"))


class TestProblem:
    def test_every_code_has_an_http_status(self) -> None:
        assert set(STATUS) == set(Code)

    @pytest.mark.parametrize("cls", ERRORS_BY_REASON.values(), ids=lambda cls: cls.reason)
    def test_problem_has_the_reason_and_status_of_the_error(self, cls: type[WalletError]) -> None:
        data = dict.fromkeys(("needed", "available", "limit"), "1.00") | {"period": "DAY"}
        body, headers = problem_from_error(cls.from_metadata(data))
        assert (body.code, body.status, body.request_id) == (
            cls.reason,
            STATUS_OVERRIDES.get(cls, STATUS[cls.code]),
            "the-request",
        )
        assert ("Retry-After" in headers) == (body.status in {429, 503})

    def test_problem_has_the_fields_of_the_error(self) -> None:
        body, _ = problem_from_error(InsufficientFunds("a", "10.00", "1.00", "RUB"))
        assert (body.needed, body.available, body.currency) == ("10.00", "1.00", "RUB")
        body, _ = problem_from_error(TopUpLimitExceeded("DAY", "10.00", "1.00", "RUB"))
        assert (body.limit, body.available, body.currency, body.period) == ("10.00", "1.00", "RUB", "DAY")
        body, _ = problem_from_error(InvalidInput((FieldViolation("amount", "is odd"), FieldViolation("x", "too"))))
        assert [(each.field, each.message) for each in body.fields or []] == [("amount", "is odd"), ("x", "too")]


class TestGraphQLError:
    def test_expected_error_is_shown_with_its_code(self) -> None:
        error = format_graphql_error(GraphQLError("…", original_error=Unavailable("the bank")))
        assert error.extensions == {"code": "UNAVAILABLE", "requestId": "the-request"}
        assert "the bank" in error.message

    def test_unexpected_error_is_hidden(self) -> None:
        error = format_graphql_error(GraphQLError("password=x", original_error=KeyError("password=x")))
        assert (error.message, error.extensions["code"] if error.extensions else "") == (
            InternalError().message,
            "INTERNAL",
        )
        assert "password" not in str(error.formatted)

    def test_syntax_error_keeps_its_message(self) -> None:
        error = format_graphql_error(GraphQLError("Syntax Error: Unexpected Name 'x'."))
        assert error.message.startswith("Syntax Error")

    def test_numbers_of_the_request_are_redacted(self) -> None:
        error = format_graphql_error(GraphQLError("Syntax Error: Expected ':', found String '4242 4242'."))
        assert error.message == "Syntax Error: Expected ':', found String '# #'."

    def test_error_in_variables_is_expected(self) -> None:
        (node,) = parse("query($x: Int) { x(x: $x) }").definitions
        wrong = GraphQLError("Variable '$x' has invalid value: 42", node, original_error=GraphQLError("42"))
        assert not is_unexpected(wrong)
        shown = format_graphql_error(wrong)
        assert (shown.message, shown.extensions["code"] if shown.extensions else "") == (
            "Variable '$x' has invalid value: #",
            "INVALID_GRAPHQL",
        )

    def test_error_of_a_scalar_is_expected(self) -> None:
        (node,) = parse('{ x(at: "yesterday") }').definitions
        assert not is_unexpected(GraphQLError("…", node, original_error=ValueError("yesterday")))

    def test_error_of_a_resolver_or_the_executor_is_unexpected(self) -> None:
        (node,) = parse("{ x }").definitions
        assert is_unexpected(GraphQLError("…", node, path=["x"], original_error=KeyError("x")))
        assert is_unexpected(GraphQLError("…", original_error=KeyError("x")))


class TestRedactDigits:
    @given(st.text())
    def test_digits_of_every_script_are_redacted(self, text: str) -> None:
        assert not any(character.isdecimal() for character in redact_digits(text))

    @given(st.text(st.characters(exclude_categories=["Nd"])))
    def test_text_without_digits_is_unchanged(self, text: str) -> None:
        assert redact_digits(text) == text
