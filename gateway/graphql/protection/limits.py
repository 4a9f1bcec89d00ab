"""Size limits of a document. They are checked before validation, in time linear in the length of the text."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    SelectionSetNode,
)
from graphql.language import OperationDefinitionNode

from gateway.errors import OperationRefused
from gateway.graphql.execution.graphql_core_internals import LimitedParser, NameTooLong, TooManyTokens

_ANONYMOUS_COST_DIVISOR: Final = 4


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the GraphQL operations of a request. The fields of a fragment are counted at each spread.

    Attributes:
        tokens: tokens of all documents of one request, comments included. Line breaks have the same limit.
        anonymous_tokens: the same for anonymous callers.
        name_characters: length of a name. Each item of a response repeats the names of its fields.
        definitions: operations and fragments of the document; validation follows all fragments from each operation.
        depth: levels of fields. Below `__schema` and `__type`, graphql-core's own rule applies.
        root_fields: fields of the root type; each is resolved on its own.
        fields: fields of all operations of the document together.
        aliases: aliases in each operation and in each fragment.
        directives: directives in each operation and in each fragment.
        repeats: selections of one response key at one level; overlapping-field validation is quadratic in it.
        cost: estimated cost of all operations of one request; see `cost.OperationCost`. Anonymous callers have a
            quarter of it.
        errors: errors in the response to one request.
    """

    tokens: int = 2_000
    anonymous_tokens: int = 500
    name_characters: int = 100
    definitions: int = 50
    depth: int = 12
    root_fields: int = 20
    fields: int = 500
    aliases: int = 50
    directives: int = 50
    repeats: int = 25
    cost: int = 25_000
    errors: int = 32

    def new_budget(self, *, is_anonymous: bool) -> "RequestBudget":
        """Return the budget of a new request."""
        tokens = self.anonymous_tokens if is_anonymous else self.tokens
        cost = self.cost // _ANONYMOUS_COST_DIVISOR if is_anonymous else self.cost
        return RequestBudget(
            tokens=tokens,
            cost=cost,
            errors=self.errors,
            max_tokens=tokens,
            max_cost=cost,
        )


@dataclass(slots=True)
class RequestBudget:
    """Remaining limits of one request. The operations of an array share one budget.

    Attributes:
        tokens: tokens that may still be parsed.
        cost: estimated cost that may still be executed.
        errors: errors that the response may still have.
        max_tokens: initial value of `tokens`, for error messages.
        max_cost: initial value of `cost`, for error messages.
    """

    tokens: int
    cost: int
    errors: int
    max_tokens: int
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
    if text.count("\n") + text.count("\r") > budget.tokens:  # for each error, the lines up to its place are counted
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
    raise _too_deep(limits.depth)


def check_limits(document: DocumentNode, limits: Limits) -> None:
    """Check each operation, each fragment, and the number of fields of all operations together.

    Fragments are checked even if no operation uses them, because validation visits them too. The document need not be
    valid.

    Raises:
        OperationRefused: a limit is exceeded.
    """
    if len(document.definitions) > limits.definitions:
        raise _too_many("DEFINITIONS", "operations and fragments", limits.definitions)
    sizes = _DocumentSizes(document)
    fields = 0
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            size = sizes.measure(definition.selection_set).with_directives(definition)
            if size.depth > limits.depth:
                raise _too_deep(limits.depth)
            if size.level > limits.root_fields:
                raise _too_many("ROOT_FIELDS", "fields at its root", limits.root_fields)
            fields += size.fields
        elif isinstance(definition, FragmentDefinitionNode):
            size = sizes.measure_fragment(definition.name.value)
        else:
            continue  # validation rejects it
        if max(fields, size.fields) > limits.fields:
            raise _too_many("FIELDS", "fields", limits.fields)
        _check_size(size, limits)
        if sizes.count_repeats(definition.selection_set, limits.fields) > limits.repeats:
            raise _too_many("REPEATS", "selections of one field", limits.repeats)


def _check_size(size: "_SelectionSize", limits: Limits) -> None:
    if size.aliases > limits.aliases:
        raise _too_many("ALIASES", "aliases", limits.aliases)
    if size.directives > limits.directives:
        raise _too_many("DIRECTIVES", "directives", limits.directives)


@dataclass(frozen=True, slots=True)
class _SelectionSize:
    """Size of a selection set.

    Attributes:
        level: number of fields at its own level. All other numbers include the levels below.
        depth: number of levels of fields.
        fields: number of fields.
        aliases: number of aliases.
        directives: number of directives.
    """

    level: int = 0
    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0

    def with_directives(self, node: FieldNode | OperationDefinitionNode | FragmentDefinitionNode) -> "_SelectionSize":
        directives = self.directives + len(node.directives or ())
        return _SelectionSize(self.level, self.depth, self.fields, self.aliases, directives)


class _DocumentSizes:
    """Sizes of a document's selection sets.

    Each fragment is measured once, however often it is spread. A fragment that spreads itself counts as empty inside
    itself; validation rejects it.
    """

    def __init__(self, document: DocumentNode) -> None:
        self._fragments: Mapping[str, FragmentDefinitionNode] = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }
        self._measured: dict[str, _SelectionSize] = {}

    def measure(self, selections: SelectionSetNode | None) -> _SelectionSize:
        """Return the size of a selection set; None is empty."""
        parts = list(self._parts(selections))
        return _SelectionSize(
            level=sum(part.level for part in parts),
            depth=max((part.depth for part in parts), default=0),
            fields=sum(part.fields for part in parts),
            aliases=sum(part.aliases for part in parts),
            directives=sum(part.directives for part in parts),
        )

    def measure_fragment(self, name: str) -> _SelectionSize:
        """Return the size of a fragment. An unknown fragment is empty."""
        if name not in self._measured:
            self._measured[name] = _SelectionSize()
            if name in self._fragments:
                fragment = self._fragments[name]
                self._measured[name] = self.measure(fragment.selection_set).with_directives(fragment)
        return self._measured[name]

    def count_repeats(self, selections: SelectionSetNode, max_fields: int) -> int:
        """Return the maximum number of selections of one response key at one level.

        Selections with the same response key are merged, and so are the selection sets below them.

        Args:
            selections: selection set with at most `max_fields` fields. If a fragment spreads itself there may be more;
                then the count stops early.
            max_fields: number of fields after which the count stops.
        """
        most, visited = 0, 0
        levels = [[selections]]
        while levels and visited <= max_fields:
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
            most, visited = max(most, *counts.values(), 0), visited + counts.total()
            levels += below.values()
        return most

    def _parts(self, selections: SelectionSetNode | None) -> Iterator[_SelectionSize]:
        for node in selections.selections if selections else ():
            directives = len(node.directives or ())
            if isinstance(node, FieldNode):
                below = self.measure(node.selection_set)
                yield _SelectionSize(
                    level=1,
                    depth=1 if node.name.value.startswith("__") else 1 + below.depth,
                    fields=1 + below.fields,
                    aliases=(node.alias is not None) + below.aliases,
                    directives=directives + below.directives,
                )
                continue
            yield _SelectionSize(directives=directives)
            if isinstance(node, FragmentSpreadNode):
                yield self.measure_fragment(node.name.value)
            elif isinstance(node, InlineFragmentNode):
                yield self.measure(node.selection_set)


def _too_many_tokens(limit: int) -> OperationRefused:
    message = f"the documents of one request have more than {limit} tokens or lines together: shorten them"
    return OperationRefused("GRAPHQL_TOKENS_EXCEEDED", message, limit=limit)


def _too_deep(limit: int) -> OperationRefused:
    message = f"the operation is nested more than {limit} levels deep: request fewer levels"
    return OperationRefused("GRAPHQL_DEPTH_EXCEEDED", message, limit=limit)


def _too_many(code: str, plural: str, limit: int) -> OperationRefused:
    message = f"the document has more than {limit} {plural}, fragments included: split it"
    return OperationRefused(f"GRAPHQL_{code}_EXCEEDED", message, limit=limit)
