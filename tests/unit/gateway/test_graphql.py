"""What the graph remembers of the texts that it was sent."""

import pytest

from gateway.graphql import schema
from gateway.graphql.schema import build_schema


@pytest.fixture(autouse=True)
def forgotten() -> None:
    schema._read_once.cache_clear()


def remembered() -> int:
    return schema._read_once.cache_info().currsize


class TestTexts:
    async def test_that_take_their_values_by_variables_are_remembered(self) -> None:
        text = "query($name: String!) { __type(name: $name) { name } }"
        graph = build_schema()
        for name in ("Account", "TopUp"):
            answer = await graph.execute(text, variable_values={"name": name})
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
        answer = await build_schema().execute(text)
        assert (answer.data == {"__type": {"name": "TopUp"}}) != bool(answer.errors)
        assert remembered() == 0
