"""The only module that uses internals of graphql-core: its executor, its parser, and its validation.

graphql-core documents these methods as private and may change them in any release.
`tests/unit/gateway/graphql/test_graphql_core_internals.py` fails if one of them is missing or no longer has an effect.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cache
from types import MethodType
from typing import Any, Final
from weakref import proxy

from graphql import (
    BREAK,
    SKIP,
    ASTValidationRule,
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLInputType,
    GraphQLSchema,
    ListValueNode,
    Node,
    ObjectValueNode,
    Token,
    TokenKind,
    TypeInfo,
    TypeInfoVisitor,
    ValidationContext,
    ValueNode,
    ValuesOfCorrectTypeRule,
    Visitor,
    visit,
)
from graphql.execution import Executor
from graphql.language import VisitorAction
from graphql.language.ast import QUERY_DOCUMENT_KEYS
from graphql.language.parser import Parser
from graphql.language.visitor import EnterLeaveVisitor
from graphql.pyutils import RefMap
from graphql.type import GraphQLResolveInfoHelpers
from graphql.utilities import validate_input_literal
from graphql.validation.validation_context import VariableUsageVisitor

from gateway.graphql.execution.field_errors import locate_error
from kit.runtime.pauses import ITEMS_PER_TURN, with_pauses


class TooManyTokens(Exception):
    """The text has more tokens than the parser accepts."""


class NameTooLong(Exception):
    """The text has a name that is longer than the parser accepts."""


class LimitedParser(Parser):
    """Parser that limits the number of tokens and the length of names, and whose document has no reference cycles.

    graphql-core's own token limit is not used, because its error cannot be distinguished from other syntax errors. Each
    token refers to the next one and to the previous one. Because of these cycles, hostile documents would make the
    garbage collector run twice a second, and each run stops the process for 20 ms.
    """

    def __init__(self, text: str, max_tokens: int, max_name_characters: int) -> None:
        """Args:
        text: source of the document.
        max_tokens: maximum number of tokens, comments included.
        max_name_characters: maximum length of a name. It is limited because each item of a response repeats the names
            or aliases of its fields, so a long name makes a response large.
        """
        super().__init__(text)
        self._allowed = max_tokens
        self._name_characters = max_name_characters
        self._first_token: Token = self._lexer.token

    def advance_lexer(self) -> None:
        """Read the next token and check the limits.

        Raises:
            TooManyTokens: the text has more tokens than `max_tokens`.
            NameTooLong: a name is longer than `max_name_characters`.
        """
        super().advance_lexer()
        if self.token_count > self._allowed:
            raise TooManyTokens
        token = self._lexer.token
        if token.end - token.start > self._name_characters and token.kind is TokenKind.NAME:
            raise NameTooLong

    def unlink_tokens(self) -> None:
        """Remove the references of all tokens to the previous ones. Call it once, after parsing or an error."""
        token: Token | None = self._first_token
        while token is not None:
            token.prev = None
            token = token.next


class _InvalidLiteral(Exception):
    def __init__(self, error: GraphQLError, path: list[str | int]) -> None:
        super().__init__()
        self.error = error
        self.path = path


class LiteralRule(ValuesOfCorrectTypeRule):
    """Validation rule that reports only the first error of each literal, with its path.

    graphql-core prints the whole literal for each error, so many errors in one long literal would take long.
    """

    def is_valid_value_node(self, node: ValueNode, input_type: GraphQLInputType | None) -> VisitorAction:
        """Pass the first error of a literal to `report_literal`."""
        if input_type:
            try:
                validate_input_literal(node, input_type, _raise_first, hide_suggestions=True)
            except _InvalidLiteral as invalid:
                # An error of a custom scalar has no nodes.
                invalid.error.nodes = invalid.error.nodes or [_node_at(node, invalid.path)]
                self.report_literal(invalid.error, input_type, invalid.path)
        return SKIP

    def report_literal(self, error: GraphQLError, input_type: GraphQLInputType, path: list[str | int]) -> None:
        """Report the first error of a literal.

        Args:
            error: graphql-core's error with the node of the invalid part; its message quotes the literal.
            input_type: expected type of the whole literal.
            path: path to the invalid part: names of input fields, and indexes of lists.
        """
        raise NotImplementedError


def _raise_first(error: GraphQLError, path: list[str | int]) -> None:
    raise _InvalidLiteral(error, path)


def _node_at(node: ValueNode, path: list[str | int]) -> ValueNode:
    """Return the part of a literal at a path, or the last part that exists."""
    for part in path:
        if isinstance(node, ObjectValueNode):
            node = next((each.value for each in node.fields if each.name.value == part), node)
        elif isinstance(node, ListValueNode) and isinstance(part, int):
            node = node.values[part]
    return node


_VISITED_KEYS: Final = {
    kind: tuple(key for key in keys if key not in {"alias", "description", "name"})
    for kind, keys in QUERY_DOCUMENT_KEYS.items()
}
"""Attributes of nodes that validation visits, by kind. No rule visits names, and descriptions have no effect."""


class RuleSet:
    """Validation rules that run together in one walk over a document.

    The result is that of graphql-core's `validate`. That function takes three times as long for a document of many
    small operations: for each document it looks up the methods of all rules for all kinds of nodes, and its caches hash
    whole operations. graphql-core's function also limits the nesting of fragments; in the gateway
    `protection.limits.check_limits` does that.
    """

    def __init__(self, rules: Sequence[type[ASTValidationRule]]) -> None:
        """Args:
        rules: classes of the rules. They report errors through their context, and edit no nodes.

        Raises:
            ValueError: a rule visits names.
        """
        if any(hasattr(rule, method) for rule in rules for method in ("enter_name", "leave_name")):
            raise ValueError("a validation rule visits names: add them to the visited keys")
        self._rules = tuple(rules)
        self._methods = cache(self._find_methods)

    def validate(self, schema: GraphQLSchema, document: DocumentNode, max_errors: int) -> list[GraphQLError]:
        """Return the first errors of a document; an empty list if it is valid.

        Args:
            schema: schema that the document is for.
            document: the document.
            max_errors: number of errors after which validation stops. If it stops for this reason, or because it takes
                too much work, the last error has no nodes.
        """
        errors: list[GraphQLError] = []

        def report(error: GraphQLError) -> None:
            if len(errors) == max_errors:
                raise _ValidationStoppedError
            errors.append(error)

        type_info = TypeInfo(schema)
        context = _CachingContext(schema, document, type_info, report, hide_suggestions=True)
        try:
            visit(document, _Walk([rule(context) for rule in self._rules], type_info, self._methods), _VISITED_KEYS)
        except (
            _ValidationStoppedError,
            GraphQLError,
            RecursionError,
        ):  # rules raise a GraphQLError after too much work
            errors.append(GraphQLError("validation has stopped"))
        return errors

    def _find_methods(self, kind: str) -> Sequence[tuple[int, str, str]]:
        """Return the index of each rule that visits nodes of this kind, and the names of its methods."""
        return [
            (index, _method_name(rule, "enter", kind), _method_name(rule, "leave", kind))
            for index, rule in enumerate(self._rules)
            if _method_name(rule, "enter", kind) or _method_name(rule, "leave", kind)
        ]


class _ValidationStoppedError(Exception):
    """The document has more errors than validation reports."""


def _method_name(rule: type[ASTValidationRule], prefix: str, kind: str) -> str:
    """Return the name of the rule's method for a kind of nodes; empty if it has none."""
    return next((name for name in (f"{prefix}_{kind}", prefix) if hasattr(rule, name)), "")


class _Walk(Visitor):
    """Visitor of all rules. It also updates the type information."""

    def __init__(
        self, rules: Sequence[Visitor], type_info: TypeInfo, methods: Callable[[str], Sequence[tuple[int, str, str]]]
    ) -> None:
        super().__init__()
        self._rules = rules
        self._type_info = type_info
        self._methods = methods
        self._skipped: list[Any] = [None] * len(rules)  # for each rule: the root of the skipped nodes, or BREAK

    def get_enter_leave_for_kind(self, kind: str) -> EnterLeaveVisitor:
        methods = self.enter_leave_map.get(kind)
        if methods is None:
            methods = self.enter_leave_map[kind] = EnterLeaveVisitor(self._enter_method(kind), self._leave_method(kind))
        return methods

    def _enter_method(self, kind: str) -> Callable[..., None]:
        enter_type = getattr(self._type_info, f"enter_{kind}", None)
        methods = [(index, getattr(self._rules[index], name)) for index, name, _ in self._methods(kind) if name]
        skipped = self._skipped

        def enter(node: Node, *place: Any) -> None:
            if enter_type is not None:
                enter_type(node)
            for index, method in methods:
                if skipped[index] is None:
                    action = method(node, *place)
                    if action is not None:
                        skipped[index] = node if action is SKIP or action is False else BREAK

        return enter

    def _leave_method(self, kind: str) -> Callable[..., None]:
        leave_type = getattr(self._type_info, f"leave_{kind}", None)
        methods = [(index, getattr(self._rules[index], name, None)) for index, _, name in self._methods(kind)]
        skipped = self._skipped

        def leave(node: Node, *place: Any) -> None:
            for index, method in methods:
                if skipped[index] is None:
                    if method is not None:
                        method(node, *place)
                elif skipped[index] is node:
                    skipped[index] = None
            if leave_type is not None:
                leave_type()

        return leave


class _CachingContext(ValidationContext):
    """Validation context whose caches compare nodes by identity, and which leaves no reference cycles.

    graphql-core's caches compare nodes by value, so each look-up hashes a node and all nodes below it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._fragment_spreads: Any = RefMap()
        self._variable_usages: Any = RefMap()
        self._recursive_variable_usages: Any = RefMap()

    def get_variable_usages(self, node: Any) -> Any:
        """Return the uses of variables in a definition. A definition without `$` is not visited."""
        if not _has_variables(node):
            return []
        usages = self._variable_usages.get(node)
        if usages is None:
            fragment = node if isinstance(node, FragmentDefinitionNode) else None
            visitor = VariableUsageVisitor(self._type_info, fragment)
            walk = TypeInfoVisitor(self._type_info, visitor)
            visit(node, walk)
            for each in (visitor, walk):
                each.enter_leave_map.clear()  # the map's methods refer to the visitor: a cycle
            usages = self._variable_usages[node] = visitor.usages
        return usages


def _has_variables(node: Node) -> bool:
    if node.loc is None:
        return True
    token, end = node.loc.start_token, node.loc.end_token
    while token is not end:
        if token.kind is TokenKind.DOLLAR or token.next is None:
            return True
        token = token.next
    return False


class CoreExecutor(Executor[Any]):
    """graphql-core's executor, with pauses in long lists, and memory that is freed when the execution ends.

    graphql-core's executor and its `async_helpers` refer to each other. With that cycle the variables, the context and
    all results would stay in memory until the garbage collector runs, and each execution would take a quarter longer.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        executor = proxy(self)  # resolvers call the helpers only during the execution, while the executor exists
        self.async_helpers = GraphQLResolveInfoHelpers(
            gather=MethodType(type(self).gather_async_work, executor),
            track=MethodType(type(self).track_async_work, executor),
        )

    def build_per_event_executor(self, payload: Any) -> Any:
        """Build the executor of one event, with its own memo of sub-fields.

        In graphql-core the executors of all events share one memo. Its keys are new for each event, so the memo would
        grow until the subscription ends.
        """
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}  # noqa: SLF001
        return executor

    def handle_field_error(self, raw_error: Any, return_type: Any, field_details_list: Any, path: Any) -> None:
        """Handle a field's error without computing its line."""
        error = locate_error(raw_error, [field_details_list[0].node], path.as_list())
        super().handle_field_error(error, return_type, field_details_list, path)

    def complete_iterable_value(
        self, item_type: Any, field_details_list: Any, info: Any, path: Any, items: Any, position_context: Any
    ) -> Any:
        """Complete a list. After each 32 items of a long one, other tasks may run."""
        if isinstance(items, Collection) and len(items) > ITEMS_PER_TURN:
            paused = with_pauses(items)
            return self.complete_async_iterator_value(
                item_type, field_details_list, info, path, paused, position_context
            )
        return super().complete_iterable_value(item_type, field_details_list, info, path, items, position_context)
