"""What the graph remembers of the texts that it was sent."""

import pytest
from graphql import GraphQLError

from gateway.composition import compose
from gateway.graphql.documents import Reader
from gateway.graphql.limits import Limits

SCHEMA = compose()._schema


@pytest.fixture
def reader() -> Reader:
    return Reader(Limits(), introspection=True)


class TestTexts:
    def test_that_take_their_values_by_variables_are_remembered(self, reader: Reader) -> None:
        text = "query($name: String!) { __type(name: $name) { name } }"
        assert reader.read(SCHEMA, text) is reader.read(SCHEMA, text)
        assert reader.remembered == 1

    def test_that_are_not_valid_are_too(self, reader: Reader) -> None:
        assert reader.read(SCHEMA, "{ wrong }").errors
        assert reader.remembered == 1

    @pytest.mark.parametrize(
        "text",
        [
            '{ __type(name: "TopUp") { name } }',
            '{ __type(name: """TopUp""") { name } }',
            "{ x(number: 4242, cvv: 739) }",
        ],
    )
    def test_with_values_in_them_are_not(self, reader: Reader, text: str) -> None:
        assert reader.read(SCHEMA, text) is not reader.read(SCHEMA, text)
        assert reader.remembered == 0

    def test_that_are_no_documents_are_not(self, reader: Reader) -> None:
        with pytest.raises(GraphQLError, match="Syntax Error"):
            reader.read(SCHEMA, "{")
        assert reader.remembered == 0
