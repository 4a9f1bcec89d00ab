"""Size limits of a document. They are checked before validation, in time linear in the length of the text."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    SelectionNode,
    SelectionSetNode,
)
from graphql.language import OperationDefinitionNode

from gateway.errors import INVALID_GRAPHQL, OperationRefused
from gateway.graphql.execution.graphql_core_internals import LimitedParser, NameTooLong, TooManyTokens
from gateway.graphql.execution.validation import MESSAGES

_ANONYMOUS_DIVISOR: Final = 4
"""Divisor of the limits of cost and comparisons for anonymous callers."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the GraphQL operations of a request. The fields of a fragment are counted at each spread.

    Attributes:
        tokens: tokens of all documents of one request, comments included. Line breaks have the same limit.
        anonymous_tokens: the same for anonymous callers.
        name_characters: length of a name. It is limited because each item of a response repeats the names or aliases
            of its fields, so a long name makes a response large.
        definitions: operations and fragments of the document; validation follows all fragments from each operation.
        depth: levels of fields. Below `__schema` and `__type`, graphql-core's own rule applies.
        nesting: levels of selection sets, those of fragments included.
        root_fields: fields of the root type; each of them may call a service.
        fields: fields of all operations of the document together.
        spreads: fragment spreads and inline fragments of all operations of the document together.
        aliases: aliases in each operation and in each fragment.
        directives: directives in each operation and in each fragment.
        repeats: selections of one response key at one level; the time of overlapping-field validation grows with the
            square of their number.
        comparisons: pairs of selections of one response key at one level, and pairs of fragments at one level, in all
            documents of one request. Overlapping-field validation compares each pair. Anonymous callers have a quarter
            of this limit.
        cost: estimated cost of all operations of one request; see `cost.OperationCost`. Anonymous callers have a
            quarter of this limit.
        errors: errors in the response to one request.
    """

    tokens: int = 2_000
    anonymous_tokens: int = 500
    name_characters: int = 100
    definitions: int = 50
    depth: int = 12
    nesting: int = 50
    root_fields: int = 20
    fields: int = 500
    spreads: int = 500
    aliases: int = 50
    directives: int = 50
    repeats: int = 25
    comparisons: int = 3_000
    cost: int = 32_000
    errors: int = 32

    def new_budget(self, *, is_anonymous: bool) -> "RequestBudget":
        """Return the budget of a new request."""
        tokens = self.anonymous_tokens if is_anonymous else self.tokens
        cost = self.cost // _ANONYMOUS_DIVISOR if is_anonymous else self.cost
        comparisons = self.comparisons // _ANONYMOUS_DIVISOR if is_anonymous else self.comparisons
        return RequestBudget(
            tokens=tokens,
            comparisons=comparisons,
            cost=cost,
            errors=self.errors,
            max_tokens=tokens,
            max_comparisons=comparisons,
            max_cost=cost,
        )


@dataclass(slots=True)
class RequestBudget:
    """Remaining limits of one request. The operations of an array share one budget.

    Attributes:
        tokens: tokens that may still be parsed.
        comparisons: pairs that may still be compared.
        cost: estimated cost that may still be executed.
        errors: errors that the response may still have.
        max_tokens: initial value of `tokens`, for error messages.
        max_comparisons: initial value of `comparisons`, for error messages.
        max_cost: initial value of `cost`, for error messages.
    """

    tokens: int
    comparisons: int
    cost: int
    errors: int
    max_tokens: int
    max_comparisons: int
    max_cost: int


@dataclass(frozen=True, kw_only=True)
class WebSocketLimits:
    """Limits of one WebSocket connection.

    Attributes:
        operations: concurrent operations, of any type.
        init_seconds: time from the handshake to `connection_init`, in seconds.
        message_bytes: size of one message, in bytes.
        id_length: length of an operation's id, in characters.
        early_messages: messages before the connection is acknowledged.
    """

    operations: int = 50
    init_seconds: float = 10.0
    message_bytes: int = 64 * 1024
    id_length: int = 128
    early_messages: int = 10


def parse_document(text: str, limits: Limits, budget: RequestBudget) -> DocumentNode:
    """Return the parsed document. The tokens that were read are taken from the budget, even if parsing fails.

    Raises:
        OperationRefused: the text has too many tokens or lines, too long a name, or is nested too deeply.
        GraphQLSyntaxError: the text is not a GraphQL document.
    """
    if text.count("\n") + text.count("\r") > budget.tokens:  # graphql-core counts the lines before each error
        raise _too_many_tokens(budget.max_tokens)
    parser = LimitedParser(text, budget.tokens, limits.name_characters)
    try:
        return parser.parse_document()
    except TooManyTokens:
        raise _too_many_tokens(budget.max_tokens) from None
    except NameTooLong:
        message = f"a name in the document has more than {limits.name_characters} characters: shorten it"
        raise OperationRefused("GRAPHQL_NAME_CHARACTERS_EXCEEDED", message, limit=limits.name_characters) from None
    except RecursionError:
        pass  # `_too_deep` is raised after this block, so that its error does not keep the long traceback
    finally:
        budget.tokens -= min(budget.tokens, parser.token_count)
        parser.unlink_tokens()
    raise _too_deep(limits.depth)


def check_limits(document: DocumentNode, limits: Limits, budget: RequestBudget) -> None:
    """Check each operation, and the number of fields and spreads of all operations together.

    The comparisons of the document are taken from the budget.

    A fragment that no other definition spreads is checked like an operation, because validation visits it too. Except
    for cycles of fragments, the document need not be valid.

    Raises:
        OperationRefused: a limit is exceeded, or a fragment spreads itself. A document with such a cycle has no finite
            size, and code that follows each spread would never end.
    """
    if len(document.definitions) > limits.definitions:
        raise _too_many("DEFINITIONS", "operations and fragments", limits.definitions)
    sizes = _DocumentSizes(document)
    roots = sizes.measure_roots()
    if roots is None:
        raise _too_many("NESTING", "levels of selection sets", limits.nesting)
    fields = spreads = 0
    for definition, size in roots:
        if isinstance(definition, OperationDefinitionNode):
            _check_operation(size, limits)
        if size.nesting > limits.nesting:
            raise _too_many("NESTING", "levels of selection sets", limits.nesting)
        fields += size.fields
        spreads += size.spreads
        if fields > limits.fields:
            raise _too_many("FIELDS", "fields", limits.fields)
        if spreads > limits.spreads:
            raise _too_many("SPREADS", "spreads and inline fragments", limits.spreads)
        _check_definition(size, limits)
        repeats, comparisons = sizes.count_repeats(definition.selection_set)
        if repeats > limits.repeats:
            raise _too_many("REPEATS", "selections of one field", limits.repeats)
        budget.comparisons -= comparisons
        if budget.comparisons < 0:
            raise _too_many_comparisons(budget.max_comparisons)


def _check_operation(size: "_SelectionSize", limits: Limits) -> None:
    if size.depth > limits.depth:
        raise _too_deep(limits.depth)
    if size.level > limits.root_fields:
        raise _too_many("ROOT_FIELDS", "fields at its root", limits.root_fields)


def _check_definition(size: "_SelectionSize", limits: Limits) -> None:
    if size.aliases > limits.aliases:
        raise _too_many("ALIASES", "aliases", limits.aliases)
    if size.directives > limits.directives:
        raise _too_many("DIRECTIVES", "directives", limits.directives)


@dataclass(slots=True)
class _SelectionSize:
    """Size of a selection set.

    Attributes:
        level: number of fields at its own level. All other numbers include the levels below.
        depth: number of levels of fields.
        nesting: number of levels of selection sets.
        fields: number of fields.
        spreads: number of spreads and inline fragments.
        aliases: number of aliases.
        directives: number of directives.
    """

    level: int = 0
    depth: int = 0
    nesting: int = 0
    fields: int = 0
    spreads: int = 0
    aliases: int = 0
    directives: int = 0


_EMPTY: Final = _SelectionSize()

_Root: TypeAlias = OperationDefinitionNode | FragmentDefinitionNode


class _DocumentSizes:
    """Sizes of a document's operations. Each fragment is measured once, however often it is spread."""

    def __init__(self, document: DocumentNode) -> None:
        self._definitions = [
            each for each in document.definitions if isinstance(each, OperationDefinitionNode | FragmentDefinitionNode)
        ]  # validation rejects the others
        self._fragments: Mapping[str, FragmentDefinitionNode] = {
            each.name.value: each for each in self._definitions if isinstance(each, FragmentDefinitionNode)
        }
        self._measured: dict[str, _SelectionSize | None] = {}  # None: the fragment is being measured
        self._spread: set[str] = set()

    def measure_roots(self) -> Sequence[tuple[_Root, _SelectionSize]] | None:
        """Return the sizes of the operations, and of the fragments that no other definition spreads.

        Returns:
            The sizes; None if the document is nested too deeply to be measured.

        Raises:
            OperationRefused: a fragment spreads itself.
        """
        try:
            sizes = [(each, self._measure_definition(each)) for each in self._definitions]
        except RecursionError:
            return None
        return [(definition, size) for definition, size in sizes if not self._is_spread(definition)]

    def count_repeats(self, selections: SelectionSetNode) -> tuple[int, int]:
        """Return the maximum number of selections of one response key at one level, and the number of comparisons.

        Selections with the same response key are merged, and so are the selection sets below them.
        """
        most = comparisons = 0
        levels = [[selections]]
        while levels:
            merged, spread = levels.pop(), set[str]()
            counts: Counter[str] = Counter()
            below: defaultdict[str, list[SelectionSetNode]] = defaultdict(list)
            for node in (node for each in merged for node in each.selections):  # `merged` grows in the loop
                if isinstance(node, FieldNode):
                    key = (node.alias or node.name).value
                    counts[key] += 1
                    if node.selection_set:
                        below[key].append(node.selection_set)
                elif isinstance(node, InlineFragmentNode):
                    merged.append(node.selection_set)
                elif isinstance(node, FragmentSpreadNode) and node.name.value not in spread:
                    spread.add(node.name.value)
                    if node.name.value in self._fragments:
                        merged.append(self._fragments[node.name.value].selection_set)
            most = max(most, *counts.values(), 0)
            comparisons += _pairs(len(spread)) + sum([_pairs(count) for count in counts.values() if count > 1])
            levels += below.values()
        return most, comparisons

    def _is_spread(self, definition: _Root) -> bool:
        """Return whether another definition spreads this fragment.

        The size of that definition includes the fragment's size.
        """
        if isinstance(definition, OperationDefinitionNode):
            return False
        name = definition.name.value
        return name in self._spread and self._fragments[name] is definition  # another fragment may have the same name

    def _measure_definition(self, definition: _Root) -> _SelectionSize:
        if isinstance(definition, FragmentDefinitionNode) and self._fragments[definition.name.value] is definition:
            return self._measure_fragment(definition)
        return self._measure(definition.selection_set, len(definition.directives or ()))

    def _measure_fragment(self, fragment: FragmentDefinitionNode) -> _SelectionSize:
        name = fragment.name.value
        size = self._measured.get(name)
        if size is None:
            self._measured[name] = None
            size = self._measured[name] = self._measure(fragment.selection_set, len(fragment.directives or ()))
        return size

    def _measure(self, selections: SelectionSetNode, directives: int = 0) -> _SelectionSize:
        """Return the size of a selection set.

        Args:
            selections: selection set.
            directives: number of directives of the operation or fragment itself; 0 for a selection set inside it.
        """
        size = _SelectionSize(directives=directives)
        depth = nesting = 0
        for node in selections.selections:
            if node.directives:
                size.directives += len(node.directives)
            below = self._measure_below(node)
            if isinstance(node, FieldNode):
                size.level += 1
                size.fields += 1
                size.aliases += node.alias is not None
                depth = max(depth, 1 if node.name.value.startswith("__") else 1 + below.depth)
            else:
                size.level += below.level
                size.spreads += 1
                depth = max(depth, below.depth)
            nesting = max(nesting, below.nesting)
            size.fields += below.fields
            size.spreads += below.spreads
            size.aliases += below.aliases
            size.directives += below.directives
        size.depth, size.nesting = depth, 1 + nesting
        return size

    def _measure_below(self, node: SelectionNode) -> _SelectionSize:
        """Return the size of a selection's own selection set. A leaf and an unknown fragment are empty."""
        if isinstance(node, FragmentSpreadNode):
            name = node.name.value
            self._spread.add(name)
            if name not in self._fragments:
                return _EMPTY
            if name in self._measured and self._measured[name] is None:
                raise OperationRefused(INVALID_GRAPHQL, MESSAGES["NoFragmentCyclesRule"], [node])
            return self._measure_fragment(self._fragments[name])
        selections = node.selection_set if isinstance(node, FieldNode | InlineFragmentNode) else None
        return self._measure(selections) if selections else _EMPTY


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _too_many_comparisons(limit: int) -> OperationRefused:
    message = (
        f"the documents of one request select the same fields, or spread fragments at the same level, in more than "
        f"{limit} pairs together: select each field once"
    )
    return OperationRefused("GRAPHQL_COMPARISONS_EXCEEDED", message, limit=limit)


def _too_many_tokens(limit: int) -> OperationRefused:
    message = f"the documents of one request have more than {limit} tokens or lines together: shorten them"
    return OperationRefused("GRAPHQL_TOKENS_EXCEEDED", message, limit=limit)


def _too_deep(limit: int) -> OperationRefused:
    message = f"the operation is nested more than {limit} levels deep: request fewer levels"
    return OperationRefused("GRAPHQL_DEPTH_EXCEEDED", message, limit=limit)


def _too_many(code: str, plural: str, limit: int) -> OperationRefused:
    message = f"the document has more than {limit} {plural}, fragments included: split it"
    return OperationRefused(f"GRAPHQL_{code}_EXCEEDED", message, limit=limit)
