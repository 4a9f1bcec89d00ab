"""Error messages of invalid documents and variables: they contain names of the schema and do not quote the request."""

from typing import Any

import pytest
from graphql.language import OperationDefinitionNode

from gateway.graphql.execution.validation import MAX_ERRORS, MESSAGES, Validator
from tests.unit.gateway.graphql.policies import SCHEMA, VALIDATOR, load_document

CARD = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2031, "cvv": "123"}
TOP_UP = "mutation($input: TopUpAccountInput!) { topUpAccount(input: $input) { __typename } }"
OPERATIONS = '{ account(id: "1") { operations(%s) { pageInfo { endCursor } } } }'


def messages(text: str) -> list[str]:
    return [error.message for error in load_document(text).errors]


def variable_messages(text: str, variables: dict[str, Any], validator: Validator = VALIDATOR) -> list[str]:
    (operation,) = load_document(text).node.definitions
    assert isinstance(operation, OperationDefinitionNode)
    return [error.message for error in validator.check_variables(SCHEMA, operation, variables)]


class TestDocument:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{ acount { id } }", "`Query` has no such field; did you mean `account`, `accounts`?"),
            ("{ me { zzzzzz } }", "`User` has no such field"),
            ("{ me }", "`Query.me` is of type `User`: select fields of it"),
            ("{ me { id { x } } }", "`User.id` is of type `ID!`: it has no sub-fields"),
            ("{ account { id } }", "`Query.account` requires `id`"),
            ('{ account(id: "1", idd: 2) { id } }', "`Query.account` has no such argument; did you mean `id`?"),
            ("{ me { id @skip } }", "`@skip` requires `if`"),
            ("{ me { id @skip(if: true, iff: 1) } }", "`@skip` has no such argument; did you mean `if`?"),
            ("{ me { id @skip(if: 4242) } }", "`@skip(if:)` has an invalid value: expected `Boolean!`, true or false"),
            ("{ me { id @incude(if: true) } }", "there is no such directive; did you mean `include`?"),
            ("query @skip(if: true) { me { id } }", "`@skip` cannot be used here"),
            ("{ me { ... on Usr { id } } }", "there is no such type; did you mean `User`?"),
            ("{ me { ... on String { id } } }", MESSAGES["FragmentsOnCompositeTypesRule"]),
            ("{ me { ...F } } fragment F on Money { amount }", MESSAGES["PossibleFragmentSpreadsRule"]),
            ("{ me { ... on Money { amount } } }", MESSAGES["PossibleFragmentSpreadsRule"]),
            ("{ me { x: id x: username } }", MESSAGES["OverlappingFieldsCanBeMergedRule"]),
            (
                "query($id: Int!) { account(id: $id) { id } }",
                "a variable of type `Int!` is used where its type is not allowed",
            ),
            (
                "query($n: Int = 4.2) { accounts(first: $n) { __typename } }",
                "the default of a variable has an invalid value: expected `Int`",
            ),
            (OPERATIONS % 'first: "4242"', "`Account.operations(first:)` has an invalid value: expected `Int`"),
            (
                OPERATIONS % "filter: { types: [TRANSFER, n4242] }",
                "`Account.operations(filter:)` has an invalid value at `types[1]`: expected `OperationType!`, "  # noqa: ISC004
                "one of TRANSFER, TOP_UP",
            ),
            (
                OPERATIONS % 'filter: { from: "n4242" }',
                "`Account.operations(filter:)` has an invalid value at `from`: expected `DateTime`, "  # noqa: ISC004
                'such as "2026-11-21T12:00:00Z"',
            ),
            (
                OPERATIONS % "filter: { dircetion: IN }",
                "`Account.operations(filter:)` has an invalid value: `OperationFilter` has no such field; "  # noqa: ISC004
                "did you mean `direction`?",
            ),
            (
                'mutation { openAccount(input: { currency: "RUB" }) { __typename } }',
                "`Mutation.openAccount(input:)` has an invalid value: `OpenAccountInput` requires `idempotencyKey`",
            ),
            ("type Account4242 { x: Int }", MESSAGES["ExecutableDefinitionsRule"]),
        ],
    )
    def test_message_contains_only_names_of_the_schema(self, text: str, message: str) -> None:
        assert messages(text) == [message]

    def test_suggestions_can_be_turned_off(self) -> None:
        validator = Validator(introspection=True, suggestions=False)
        (error,) = validator.validate(SCHEMA, load_document("{ acount { id } }").node)
        assert error.message == "`Query` has no such field"

    def test_introspection_can_be_turned_off(self) -> None:
        validator = Validator(introspection=False, suggestions=False)
        errors = validator.validate(SCHEMA, load_document("{ __schema { queryType { name } } }").node)
        assert {error.message for error in errors} == {MESSAGES["NoSchemaIntrospectionCustomRule"]}

    def test_validation_stops_after_a_few_errors(self) -> None:
        *first, last = messages("{ me { zz zy zx zw zv zu zt zs } }")
        assert first == ["`User` has no such field"] * MAX_ERRORS
        assert last.startswith("validation has stopped here")

    def test_error_has_the_place_in_the_document(self) -> None:
        (error,) = load_document("{\n  me { zzzzzz }\n}").errors
        assert [(node.loc.start_token.line, node.loc.start_token.column) for node in error.nodes or () if node.loc] == [
            (2, 8)
        ]

    @pytest.mark.parametrize(
        ("text", "column"),
        [
            (
                'query($x: DateTime = "x") { account(id: 1) { operations(filter: { from: $x }) { __typename } } }',
                22,
            ),
            ('{ account(id: 1) { statistics(from: "x", to: "y", granularity: DAY) { cursor } } }', 37),
            (OPERATIONS % 'filter: { types: [TRANSFER], from: "x" }', 68),
        ],
    )
    def test_error_of_a_scalar_has_the_place_of_the_literal(self, text: str, column: int) -> None:
        error = load_document(text).errors[0]
        assert [node.loc.start_token.column for node in error.nodes or () if node.loc] == [column]

    @pytest.mark.parametrize("rule", sorted(MESSAGES))
    def test_validator_needs_a_message_for_each_rule(self, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(MESSAGES, rule)
        with pytest.raises(KeyError, match=rule):
            Validator(introspection=False, suggestions=True)


class TestVariables:
    @pytest.mark.parametrize(
        ("card", "message"),
        [
            ({"cvv": 5}, "`CardInput` requires `number`, `expiryMonth`, `expiryYear`"),
            (CARD | {"expiryMonth": "4242"}, "at `card.expiryMonth`: expected `Int!`"),
            (CARD | {"expiryMonth": None}, "at `card.expiryMonth`: expected `Int!`"),
            (CARD | {"4242424242424242": "123"}, "at `card`: `CardInput` has no such field"),
            ("4242424242424242", "at `card`: expected `CardInput!`"),
            (["4242424242424242"], "at `card`: expected `CardInput!`"),
        ],
    )
    def test_message_names_the_place_and_the_type(self, card: Any, message: str) -> None:
        value = {"accountId": "1", "amount": "1", "idempotencyKey": "k", "card": card}
        (shown,) = variable_messages(TOP_UP, {"input": value})
        assert shown.startswith("a variable of type `TopUpAccountInput!` has an invalid value ")
        assert shown.endswith(message)

    @pytest.mark.parametrize("variables", [{}, {"input": None}])
    def test_missing_variable_is_named_by_its_type(self, variables: dict[str, Any]) -> None:
        assert variable_messages(TOP_UP, variables) == [
            "a variable of type `TopUpAccountInput!` has an invalid value: expected `TopUpAccountInput!`"
        ]

    def test_item_of_a_list_is_named_by_its_index(self) -> None:
        text = "query($f: OperationFilter) { account(id: 1) { operations(filter: $f) { __typename } } }"
        (shown,) = variable_messages(text, {"f": {"types": ["TRANSFER", "4242"]}})
        assert (
            shown
            == "a variable of type `OperationFilter` has an invalid value at `types[1]`: expected `OperationType!`, "
            "one of TRANSFER, TOP_UP"
        )

    def test_only_the_first_errors_are_reported(self) -> None:
        text = "query($f: OperationFilter) { account(id: 1) { operations(filter: $f) { __typename } } }"
        assert len(variable_messages(text, {"f": {"types": list(range(20_000))}})) == MAX_ERRORS
