"""Every error has its place over HTTP and in the graph."""

import pytest
from graphql import GraphQLError

from gateway.errors import STATUS, graphql_error, problem
from kit import call
from wallet.errors import (
    BY_REASON,
    Code,
    FieldViolation,
    InsufficientFunds,
    InternalError,
    InvalidInput,
    Unavailable,
    WalletError,
)


@pytest.fixture(autouse=True)
def request_id() -> None:
    call.current.set(call.Call("the-request"))


class TestProblem:
    def test_every_code_has_a_status(self) -> None:
        assert set(STATUS) == set(Code)

    @pytest.mark.parametrize("cls", BY_REASON.values(), ids=lambda cls: cls.reason)
    def test_every_error_is_a_problem_with_its_reason(self, cls: type[WalletError]) -> None:
        body, headers = problem(cls.from_metadata(dict.fromkeys(("needed", "available"), "1.00")))
        assert (body.code, body.status, body.request_id) == (cls.reason, STATUS[cls.code], "the-request")
        assert ("Retry-After" in headers) == (body.status in {429, 503})

    def test_carries_what_a_program_needs(self) -> None:
        body, _ = problem(InsufficientFunds("a", "10.00", "1.00", "RUB"))
        assert (body.needed, body.available, body.currency) == ("10.00", "1.00", "RUB")
        body, _ = problem(InvalidInput((FieldViolation("amount", "is odd"), FieldViolation("x", "too"))))
        assert [(each.field, each.message) for each in body.fields or []] == [("amount", "is odd"), ("x", "too")]


class TestGraphQLError:
    def test_shows_an_expected_error_with_its_code(self) -> None:
        error = graphql_error(GraphQLError("…", original_error=Unavailable("the bank")))
        assert error.extensions == {"code": "UNAVAILABLE", "requestId": "the-request"}
        assert "the bank" in error.message

    def test_hides_an_unexpected_one(self) -> None:
        error = graphql_error(GraphQLError("password=x", original_error=KeyError("password=x")))
        assert (error.message, error.extensions["code"] if error.extensions else "") == (
            InternalError().message,
            "INTERNAL",
        )
        assert "password" not in str(error.formatted)

    def test_leaves_the_parsers_own_words(self) -> None:
        error = graphql_error(GraphQLError("Syntax Error: Unexpected Name 'x'."))
        assert error.message.startswith("Syntax Error")
