"""What the graph remembers of the texts that it was sent."""

import pytest
from strawberry.extensions import ParserCache

from gateway import graphql
from gateway.graphql import build_schemas

GRAPH = build_schemas(federation=False)["/graphql"]
REMEMBERED = ParserCache(maxsize=graphql._CACHED_DOCUMENTS).cached_parse_document


@pytest.fixture(autouse=True)
def forgotten() -> None:
    REMEMBERED.cache_clear()  # type: ignore[attr-defined]


def remembered() -> int:
    size: int = REMEMBERED.cache_info().currsize  # type: ignore[attr-defined]
    return size


class TestTexts:
    async def test_that_take_their_values_by_variables_are_remembered(self) -> None:
        text = "query($name: String!) { __type(name: $name) { name } }"
        for name in ("Account", "TopUp"):
            answer = await GRAPH.execute(text, variable_values={"name": name})
            assert answer.data == {"__type": {"name": name}}
        assert remembered() == 1

    @pytest.mark.parametrize(
        "text",
        [
            '{ __type(name: "TopUp") { name } }',
            '{ __type(name: """TopUp""") { name } }',
            "{ x(number: 4242, cvv: 739) }",
        ],
    )
    async def test_with_values_in_them_are_not(self, text: str) -> None:
        answer = await GRAPH.execute(text)
        assert (answer.data == {"__type": {"name": "TopUp"}}) != bool(answer.errors)
        assert remembered() == 0
