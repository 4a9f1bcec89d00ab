"""What an operation may be made of: looked at before anything else is done with it, in time linear in its text."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    SelectionSetNode,
)
from graphql.language import OperationDefinitionNode
from graphql.language.parser import Parser

from gateway.errors import OperationRefused


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most of each that an operation may have; fragments count wherever they are spread.

    Attributes:
        tokens: of the text, comments included.
        depth: levels of fields. Below `__schema` and `__type`, graphql-core's own rule holds.
        root_fields: fields of the operation itself, each of which is resolved by itself.
        fields: in all, of all operations of the document.
        aliases: in all.
        directives: in all.
        repeats: of one field at one place of the answer: that all of them mean the same is looked at pair by pair.
        cost: estimated; see `cost.Cost`.
    """

    tokens: int = 2_000
    depth: int = 12
    root_fields: int = 20
    fields: int = 500
    aliases: int = 50
    directives: int = 50
    repeats: int = 25
    cost: int = 10_000


@dataclass(frozen=True, kw_only=True)
class WebSocketLimits:
    """Limits of one WebSocket connection.

    Attributes:
        operations: concurrent operations, of any type.
        init_seconds: time from the handshake to `connection_init`, in seconds.
        message_bytes: size of one message, in bytes.
    """

    operations: int = 50
    init_seconds: float = 10.0
    message_bytes: int = 64 * 1024


def parse(text: str, limits: Limits) -> DocumentNode:
    """The document that a text is.

    Raises:
        OperationRefused: it has too many tokens, or is nested so deeply that the parser gives up.
        GraphQLSyntaxError: it is none.
    """
    try:
        return _Parser(text, limits.tokens).parse_document()
    except RecursionError:
        pass  # past this block, where its traceback is not kept
    raise _too_deep(limits.depth)


def check(document: DocumentNode, limits: Limits) -> None:
    """Each operation of a document, and how much there is in each fragment by itself and in all operations together,
    since all of it is validated. It need not be valid.

    Raises:
        OperationRefused: there is too much of something.
    """
    shapes = _Shapes(document)
    fields = 0
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            shape = shapes.of(definition.selection_set).with_directives(definition)
            if shape.depth > limits.depth:
                raise _too_deep(limits.depth)
            if shape.level > limits.root_fields:
                raise _too_many("ROOT_FIELDS", "fields at its root", limits.root_fields)
            fields += shape.fields
        elif isinstance(definition, FragmentDefinitionNode):
            shape = shapes.of_fragment(definition.name.value)
        else:
            continue  # validation refuses it
        if max(fields, shape.fields) > limits.fields:
            raise _too_many("FIELDS", "fields", limits.fields)
        if shape.aliases > limits.aliases:
            raise _too_many("ALIASES", "aliases", limits.aliases)
        if shape.directives > limits.directives:
            raise _too_many("DIRECTIVES", "directives", limits.directives)
        if shapes.repeats(definition.selection_set, limits.fields) > limits.repeats:
            raise _too_many("REPEATS", "fields that stand for one", limits.repeats)


class _Parser(Parser):
    """graphql-core's, whose own limit of tokens cannot be told from other errors of syntax."""

    def __init__(self, text: str, tokens: int) -> None:
        super().__init__(text)
        self._allowed = tokens

    def advance_lexer(self) -> None:
        super().advance_lexer()
        if self.token_count > self._allowed:
            message = f"the document has more than {self._allowed} tokens: shorten it"
            raise OperationRefused("GRAPHQL_TOKENS_EXCEEDED", message, limit=self._allowed)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How much there is in a selection set: `level` are the fields of its own, the others are with all below."""

    level: int = 0
    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0

    def with_directives(self, node: FieldNode | OperationDefinitionNode | FragmentDefinitionNode) -> "_Shape":
        more = self.directives + len(node.directives or ())
        return _Shape(self.level, self.depth, self.fields, self.aliases, more)


class _Shapes:
    """Shapes of a document's selection sets. Each fragment is looked at once, however often it is spread; inside itself
    it is nothing, which validation refuses.
    """

    def __init__(self, document: DocumentNode) -> None:
        self._fragments: Mapping[str, FragmentDefinitionNode] = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }
        self._known: dict[str, _Shape] = {}

    def of_fragment(self, name: str) -> _Shape:
        if name not in self._known:
            self._known[name] = _Shape()
            if name in self._fragments:
                fragment = self._fragments[name]
                self._known[name] = self.of(fragment.selection_set).with_directives(fragment)
        return self._known[name]

    def repeats(self, selections: SelectionSetNode, most_fields: int) -> int:
        """How often one field is selected at one place of the answer, at most: fields of one name are one, and so are
        those below them.

        Args:
            selections: with no more than so many fields, unless a fragment spreads itself. Then not all are looked at.
            most_fields: in all.
        """
        most, seen = 0, 0
        places = [[selections]]
        while places and seen <= most_fields:
            together, spread = places.pop(), set[str]()
            count: Counter[str] = Counter()
            below: defaultdict[str, list[SelectionSetNode]] = defaultdict(list)
            for node in (node for each in together for node in each.selections):  # `together` grows meanwhile
                if isinstance(node, FieldNode):
                    name = (node.alias or node.name).value
                    count[name] += 1
                    if node.selection_set:
                        below[name].append(node.selection_set)
                elif isinstance(node, InlineFragmentNode):
                    together.append(node.selection_set)
                elif isinstance(node, FragmentSpreadNode) and node.name.value not in spread:
                    spread.add(node.name.value)
                    if node.name.value in self._fragments:
                        together.append(self._fragments[node.name.value].selection_set)
            most, seen = max(most, *count.values(), 0), seen + count.total()
            places += below.values()
        return most

    def of(self, selections: SelectionSetNode | None) -> _Shape:
        parts = list(self._parts(selections))
        return _Shape(
            level=sum(part.level for part in parts),
            depth=max((part.depth for part in parts), default=0),
            fields=sum(part.fields for part in parts),
            aliases=sum(part.aliases for part in parts),
            directives=sum(part.directives for part in parts),
        )

    def _parts(self, selections: SelectionSetNode | None) -> Iterator[_Shape]:
        for node in selections.selections if selections else ():
            directives = len(node.directives or ())
            if isinstance(node, FieldNode):
                below = self.of(node.selection_set)
                yield _Shape(
                    level=1,
                    depth=1 if node.name.value.startswith("__") else 1 + below.depth,
                    fields=1 + below.fields,
                    aliases=(node.alias is not None) + below.aliases,
                    directives=directives + below.directives,
                )
                continue
            yield _Shape(directives=directives)
            if isinstance(node, FragmentSpreadNode):
                yield self.of_fragment(node.name.value)
            elif isinstance(node, InlineFragmentNode):
                yield self.of(node.selection_set)


def _too_deep(limit: int) -> OperationRefused:
    message = f"the operation is nested more than {limit} levels deep: ask for less at once"
    return OperationRefused("GRAPHQL_DEPTH_EXCEEDED", message, limit=limit)


def _too_many(what: str, whats: str, limit: int) -> OperationRefused:
    message = f"the operation has more than {limit} {whats}, fragments included: split it"
    return OperationRefused(f"GRAPHQL_{what}_EXCEEDED", message, limit=limit)
