"""Mapping of errors to HTTP problems and GraphQL errors."""

import pytest
from graphql import GraphQLError, GraphQLSyntaxError, parse

from gateway.errors import (
    STATUS,
    STATUS_OVERRIDES,
    OperationRefused,
    format_graphql_error,
    is_unexpected,
    problem_from_error,
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

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{ x(a 4242) }", "syntax error: this place needs `:`"),
            ("{ x } 4242 }", "syntax error: correct the document at this place"),
            ("{ x(4242: 1) }", "syntax error: this place needs a name"),
            ("{ x(a: ) }", "syntax error: correct the document at this place"),
            ('{ x(a: "4242', "syntax error: correct the document at this place"),
            ("{ x 4242x }", "syntax error: correct the document at this place"),
        ],
    )
    def test_syntax_error_names_the_expected_token_only(self, text: str, message: str) -> None:
        with pytest.raises(GraphQLSyntaxError) as wrong:
            parse(text)
        error = format_graphql_error(wrong.value)
        assert (error.message, error.locations) == (message, wrong.value.locations)

    @pytest.mark.parametrize("path", [None, ["x"]])
    def test_message_of_a_library_is_replaced(self, path: list[str | int] | None) -> None:
        error = format_graphql_error(GraphQLError("Variable '$x4242' has invalid value: 42", path=path))
        assert "42" not in error.message
        assert (error.extensions or {})["code"] == "INVALID_GRAPHQL"

    def test_locations_are_the_first_ones_of_the_nodes(self) -> None:
        nodes = parse("\n{ a }\n{ b }" + "{ c }" * 9).definitions
        error = format_graphql_error(OperationRefused("X", "y", nodes))
        assert error.formatted["locations"][:2] == [{"line": 2, "column": 1}, {"line": 3, "column": 1}]
        assert len(error.formatted["locations"]) == 5

    def test_error_in_variables_is_expected(self) -> None:
        (node,) = parse("query($x: Int) { x(x: $x) }").definitions
        assert not is_unexpected(GraphQLError("…", node, original_error=GraphQLError("42")))

    def test_error_of_a_scalar_is_expected(self) -> None:
        (node,) = parse('{ x(at: "yesterday") }').definitions
        assert not is_unexpected(GraphQLError("…", node, original_error=ValueError("yesterday")))

    def test_error_of_a_resolver_or_the_executor_is_unexpected(self) -> None:
        (node,) = parse("{ x }").definitions
        assert is_unexpected(GraphQLError("…", node, path=["x"], original_error=KeyError("x")))
        assert is_unexpected(GraphQLError("…", original_error=KeyError("x")))
