"""The table of problem types: it has all codes with their statuses, and agrees with the pages and the contract."""

import ast
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI

from gateway.errors import STATUS, STATUS_OVERRIDES, build_problem, problem_from_error
from gateway.http import pages, problem_types
from gateway.http.problem_types import PROBLEM_TYPES, ProblemType
from kit.rpc import request_context
from tests.unit.gateway.http.asgi import http_client
from wallet.errors import ERRORS_BY_REASON, InsufficientFunds, WalletError

ROOT = Path(__file__).parents[4]
HTTP_ERRORS = {"NOT_FOUND", "METHOD_NOT_ALLOWED"}
"""Codes of the errors that Starlette raises. Each code is the name of the HTTP status."""


def literal_codes() -> Iterator[str]:
    """Yield the codes that the gateway's sources pass to `build_problem`."""
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("build_problem"):
                code = node.args[1]
                if isinstance(code, ast.Constant):
                    yield str(code.value)


class TestTable:
    def test_table_has_each_code_that_the_gateway_returns_and_no_other(self) -> None:
        codes = set(literal_codes())
        assert "CONTENT_TOO_LARGE" in codes
        assert PROBLEM_TYPES.keys() == ERRORS_BY_REASON.keys() | codes | HTTP_ERRORS

    @pytest.mark.parametrize("cls", ERRORS_BY_REASON.values(), ids=lambda cls: cls.reason)
    def test_type_has_the_status_of_the_error(self, cls: type[WalletError]) -> None:
        assert PROBLEM_TYPES[cls.reason].status == STATUS_OVERRIDES.get(cls, STATUS[cls.code])

    @pytest.mark.parametrize("type_", PROBLEM_TYPES.values(), ids=lambda type_: type_.code)
    def test_texts_are_sentences_and_the_title_is_not_the_status(self, type_: ProblemType) -> None:
        assert type_.meaning.endswith(".")
        assert type_.action.endswith(".")
        assert type_.title not in {status.phrase for status in HTTPStatus}

    def test_titles_and_uris_are_unique(self) -> None:
        assert len({each.title for each in PROBLEM_TYPES.values()}) == len(PROBLEM_TYPES)
        assert len({each.uri for each in PROBLEM_TYPES.values()}) == len(PROBLEM_TYPES)

    def test_contract_names_each_code(self) -> None:
        contract = (ROOT / "openapi" / "openapi.yaml").read_text()
        undocumented = {"ACCOUNT_NOT_EMPTY", "INTERNAL", "METHOD_NOT_ALLOWED", "NOT_FOUND", "SUBSCRIBER_TOO_SLOW"}
        assert {code for code in PROBLEM_TYPES if f"`{code}`" not in contract} <= undocumented
        assert f"[{problem_types.PATH}]({problem_types.PATH})" in yaml.safe_load(contract)["info"]["description"]

    def test_error_page_of_nginx_has_the_type_of_the_gateway(self) -> None:
        text = (ROOT / "deploy" / "nginx" / "templates" / "default.conf.template").read_text()
        type_ = PROBLEM_TYPES["UNAVAILABLE"]
        assert f'"type":"{type_.uri}","title":"{type_.title}","status":{type_.status}' in text


class TestProblem:
    @pytest.fixture(autouse=True)
    def request_id(self) -> None:
        request_context.current_request.set(request_context.RequestContext("the-request"))

    def test_problem_has_title_and_type_of_the_table(self) -> None:
        problem, _ = problem_from_error(InsufficientFunds("a", "2.00", "1.00", "RUB"))
        assert (problem.type, problem.title) == ("/problems/insufficient-funds", "Insufficient funds")

    def test_code_outside_the_table_has_no_type_of_its_own(self) -> None:
        problem = build_problem(HTTPStatus.IM_A_TEAPOT, "TEAPOT", "no coffee")
        assert (problem.type, problem.title) == ("about:blank", "I'm a Teapot")


class TestPages:
    async def test_each_type_has_a_page_that_the_list_links_to(self) -> None:
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        pages.add_pages(app)
        async with http_client(app) as http:
            index = await http.get(problem_types.PATH)
            for type_ in PROBLEM_TYPES.values():
                assert f'href="{type_.uri}"' in index.text
                page = await http.get(type_.uri)
                assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
                assert type_.code in page.text
                assert "`" not in page.text
            assert (await http.head(type_.uri)).status_code == 200
            assert (await http.get("/problems/none")).status_code == 404

    def test_text_is_escaped_and_backticks_are_code(self) -> None:
        assert problem_types._html("a < `b & c` > d") == "a &lt; <code>b &amp; c</code> &gt; d"
