"""Generated GraphQL schemas, operations and resolvers, with every kind of result and defect.

Everything depends on a seed. A resolver's behaviour depends on the seed and on its path only, so two executions have
the same results in any order.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any, Final

from graphql import (
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLField,
    GraphQLFloat,
    GraphQLID,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    GraphQLUnionType,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    is_object_type,
)

OBJECTS: Final = ("Cat", "Dog", "Owl")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


def _serialize_even(value: Any) -> Any:
    if value == "none":
        return None
    if not isinstance(value, int) or value % 2:
        raise ValueError(f"{value} is odd")
    return value


COLOR: Final = GraphQLEnumType("Color", Color)
EVEN: Final = GraphQLScalarType("Even", coerce_output_value=_serialize_even)
INNER: Final = GraphQLInputObjectType("Inner", {"flag": GraphQLInputField(GraphQLBoolean)})
PLACE: Final = GraphQLInputObjectType(
    "Place",
    lambda: {
        "x": GraphQLInputField(GraphQLNonNull(GraphQLInt)),
        "names": GraphQLInputField(GraphQLList(GraphQLNonNull(GraphQLString)), out_name="labels"),
        "color": GraphQLInputField(COLOR, default_value=Color.BLUE),
        "next": GraphQLInputField(INNER),
    },
)
ARGUMENTS: Final = {
    "n": GraphQLArgument(GraphQLInt, default_value=7, out_name="number"),
    "must": GraphQLArgument(GraphQLNonNull(GraphQLString), default_value="m"),
    "place": GraphQLArgument(PLACE),
    "colors": GraphQLArgument(GraphQLList(COLOR)),
    "id": GraphQLArgument(GraphQLID),
}
VARIABLES: Final = (
    '$i: Int, $d: Int = 5, $s: String! = "t", $p: Place, $q: Place = {x: 1, names: "a"}, $c: [Color], $yes: Boolean!,'
    " $no: Boolean = false, $id: ID, $inner: Inner"
)


class Member:
    """Source with attributes."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        vars(self).update(members)


class Later:
    """Awaitable value. Unlike a coroutine, it may stay unawaited without a warning."""

    def __init__(self, turns: int, fails: bool, value: Any) -> None:
        """Args:
        turns: turns of the event loop until the value is there.
        fails: raise an error instead.
        value: the value.
        """
        self._turns = turns
        self._fails = fails
        self._value = value

    def __await__(self) -> Generator[None, None, Any]:
        for _ in range(self._turns):
            yield
        if self._fails:
            raise ValueError("failed later")
        return self._value


@dataclass
class Graph:
    """Schema with resolvers.

    Attributes:
        seed: what the schema and the results depend on.
        calls: number of calls of each resolver with the same arguments.
        order: paths of the calls of root fields, in their order.
    """

    seed: int
    calls: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    schema: GraphQLSchema = field(init=False)

    def __post_init__(self) -> None:
        random = Random(self.seed)
        self._types: dict[str, Any] = {}
        named = {
            "Int": GraphQLInt,
            "Float": GraphQLFloat,
            "String": GraphQLString,
            "Boolean": GraphQLBoolean,
            "ID": GraphQLID,
            "Color": COLOR,
            "Even": EVEN,
        }
        leaves, all_ = list(named), [*named, *OBJECTS, "Animal", "Pet"]
        shared = {"name": self._random_type(random, leaves), "kin": self._random_type(random, [*OBJECTS, "Animal"])}
        shapes = {
            each: {
                "id": "ID!",
                **shared,
                **{f"f{number}": self._random_type(random, all_) for number in range(random.randint(1, 4))},
            }
            for each in (*OBJECTS, "Root")
        }
        is_resolved = {(type_, name): random.random() < 0.6 for type_, fields in shapes.items() for name in fields}
        self._animal = GraphQLInterfaceType(
            "Animal",
            lambda: {name: GraphQLField(self._type(text)) for name, text in {"id": "ID!", **shared}.items()},
            resolve_type=self._type_resolver(random),
        )
        self._types["Animal"] = self._animal
        for each in OBJECTS:
            self._types[each] = GraphQLObjectType(
                each,
                self._fields(each, shapes[each], is_resolved),
                interfaces=[self._animal],
                is_type_of=self._type_checker(random, each),
            )
        self._types["Pet"] = GraphQLUnionType(
            "Pet", lambda: [self._types[each] for each in OBJECTS[:2]], resolve_type=self._type_resolver(random)
        )
        roots = {
            each: GraphQLObjectType(each, self._fields("Root", shapes["Root"], is_resolved))
            for each in ("Query", "Mutation", "Subscription")
        }
        self._types["Root"] = roots["Query"]
        self._leaves = named
        self.schema = GraphQLSchema(
            roots["Query"], roots["Mutation"], roots["Subscription"], types=[self._types[each] for each in OBJECTS]
        )

    def _random_type(self, random: Random, names: list[str]) -> str:
        text = random.choice(names)
        for _ in range(random.choice((0, 0, 1, 1, 2))):
            text = f"[{text}{random.choice(('', '!'))}]"
        return text + random.choice(("", "", "!"))

    def _type(self, text: str) -> Any:
        if text.endswith("!"):
            return GraphQLNonNull(self._type(text[:-1]))
        if text.startswith("["):
            return GraphQLList(self._type(text[1:-1]))
        return self._types[text] if text in self._types else self._leaves[text]

    def _fields(
        self, type_: str, shape: Mapping[str, str], is_resolved: Mapping[tuple[str, str], bool]
    ) -> Callable[[], dict[str, GraphQLField]]:
        def fields() -> dict[str, GraphQLField]:
            return {
                name: GraphQLField(
                    self._type(text),
                    args=ARGUMENTS if number % 2 else None,
                    resolve=self._resolve if is_resolved[type_, name] else None,
                )
                for number, (name, text) in enumerate(shape.items())
            }

        return fields

    def _resolve(self, _: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        path = "/".join(map(str, info.path.as_list()))
        self.calls[f"{path} {info.parent_type} {info.field_name} {info.return_type} {arguments} {_info(info)}"] += 1
        if info.path.prev is None:
            self.order.append(path)
        random = Random(f"{self.seed} {path}")
        return self._result(random, lambda: self.value(info.return_type, random, 2))

    def _result(self, random: Random, value: Callable[[], Any]) -> Any:
        """Return a value now or later, or raise an error."""
        kind = random.random()
        if kind < 0.08:
            raise ValueError("failed")
        if kind < 0.35:
            return Later(random.randint(0, 3), random.random() < 0.15, value())
        if kind < 0.4:
            return KeyError("returned")
        return value()

    def value(self, type_: Any, random: Random, depth: int) -> Any:
        """Return a value of a type, sometimes null, sometimes of a wrong type.

        Args:
            type_: the type.
            random: decides.
            depth: levels of members of the default resolver.
        """
        nullable = get_nullable_type(type_)
        kind = random.random()
        if kind < 0.06:
            return None
        if kind < 0.1:
            return random.choice([object, "odd", 3.5, [1], {"__typename": "Int"}, 2**40])
        if is_list_type(nullable):
            return self._list(nullable.of_type, random, depth)
        if is_leaf_type(nullable):
            return _leaf(str(nullable), random)
        if is_abstract_type(nullable):
            nullable = self._types[random.choice(OBJECTS)]
        return self.source(nullable, random, depth)

    def _list(self, type_: Any, random: Random, depth: int) -> Any:
        items = [self._item(type_, random, depth) for _ in range(random.choice((0, 1, 2, 3)) if depth else 0)]
        shape = random.random()
        if shape < 0.15:
            return _iterate(items, random.random() < 0.3)
        if shape < 0.3:
            return _iterate_later(items, random.random() < 0.3)
        return tuple(items) if shape < 0.5 else items

    def _item(self, type_: Any, random: Random, depth: int) -> Any:
        kind = random.random()
        value = self.value(type_, random, depth)
        if kind < 0.2:
            return Later(random.randint(0, 2), kind < 0.05, value)
        return ValueError("an item") if kind < 0.25 else value

    def source(self, type_: GraphQLObjectType, random: Random, depth: int) -> Any:
        """Return an object with the members that the default resolver reads."""
        members: dict[str, Any] = {"__typename": type_.name, "kind": type_.name}
        if depth:
            for name, each in type_.fields.items():
                if each.resolve is None:
                    members[name] = self._member(each.type, random, depth - 1)
        return members if random.random() < 0.6 else Member(members)

    def _member(self, type_: Any, random: Random, depth: int) -> Any:
        kind = random.random()
        if kind < 0.2:
            seed = random.random()
            return lambda _info, **arguments: self._called(type_, Random(seed), depth, arguments)
        return self._item(type_, random, depth)

    def _called(self, type_: Any, random: Random, depth: int, arguments: Mapping[str, Any]) -> Any:
        self.calls[f"member {type_} {arguments}"] += 1
        return self._result(random, lambda: self.value(type_, random, depth))

    def _type_resolver(self, random: Random) -> Any:
        if random.random() < 0.3:
            return None  # `__typename`, or `is_type_of`
        is_async = random.random() < 0.4

        def resolve_type(value: Any, info: GraphQLResolveInfo[Any], type_: Any) -> Any:
            self.calls[f"type {info.path.as_list()} {type_}"] += 1
            name = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
            if name == "Owl":
                name = Random(f"{self.seed} {info.path.as_list()}").choice(["Owl", None, "Nothing", "Int", 5, "Query"])
            return Later(1, False, name) if is_async else name

        return resolve_type

    def _type_checker(self, random: Random, type_name: str) -> Any:
        kind = random.random()
        if kind < 0.5:
            return None

        def is_type_of(value: Any, info: GraphQLResolveInfo[Any]) -> Any:
            self.calls[f"check {info.path.as_list()} {type_name}"] += 1
            name = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
            if kind > 0.9:
                raise ValueError("cannot tell")
            return Later(1, False, name == type_name) if kind > 0.7 else name == type_name

        return is_type_of

    def document(self, operation: str, random: Random) -> str:
        """Return a document with one operation. It may be invalid."""
        root = self.schema.get_type(operation.capitalize())
        fragments = "".join(
            f" fragment {name}On{each} on {each} {self._selections(self._types[each], random, 1, spreads=False)}"
            for each in (*OBJECTS, "Animal")
            for name in ("First", "Second")
        )
        count = 1 if operation == "subscription" else random.randint(1, 4)
        return f"{operation} Q({VARIABLES}) {self._selections(root, random, 3, count=count)}{fragments}"

    def _selections(
        self, type_: Any, random: Random, depth: int, *, spreads: bool = True, count: int | None = None
    ) -> str:
        parts = []
        for _ in range(count or random.randint(1, 3)):
            kind = random.random()
            if count != 1 and kind < 0.1:
                parts.append(f"{random.choice(('', 't: '))}__typename")
            elif count != 1 and kind < 0.3 and depth:
                on = random.choice([f"on {each}" for each in self._conditions(type_)] + [""])
                inner = self._types.get(on.removeprefix("on "), type_)
                parts.append(f"...{on}{_directive(random)} {self._selections(inner, random, depth, spreads=spreads)}")
            elif count != 1 and kind < 0.5 and spreads and str(type_) in {*OBJECTS, "Animal"}:
                parts.append(f"...{random.choice(('First', 'Second'))}On{type_}{_directive(random)}")
            elif hasattr(type_, "fields"):
                parts.append(self._field(type_, random, depth, spreads=spreads, is_only=count == 1))
        return f"{{ {' '.join(parts or ['__typename'])} }}"

    def _conditions(self, type_: Any) -> list[str]:
        if is_object_type(type_):
            return [] if str(type_) not in OBJECTS else [str(type_), "Animal"]
        return [*(str(each) for each in self.schema.get_possible_types(type_)), str(type_)]

    def _field(self, type_: Any, random: Random, depth: int, *, spreads: bool, is_only: bool) -> str:
        leaves = [name for name, each in type_.fields.items() if is_leaf_type(get_named_type(each.type))]
        name = random.choice(list(type_.fields) if depth else leaves)
        definition = type_.fields[name]
        arguments = _arguments(random) if definition.args else ""
        alias = f"a{len(arguments)}_{name}: " if arguments or random.random() < 0.2 else ""
        named = get_named_type(definition.type)
        below = "" if is_leaf_type(named) else self._selections(named, random, max(depth - 1, 0), spreads=spreads)
        return f"{alias}{name}{arguments}{'' if is_only else _directive(random)} {below}"


def _info(info: GraphQLResolveInfo[Any]) -> str:
    """Describe what a resolver sees."""
    nodes = [each.loc.start for each in info.field_nodes if each.loc]
    path = str(info.path)
    sources = [(name, each.value, str(each.signature.type)) for name, each in info.variable_values.sources.items()]
    values = f"{sources} {info.variable_values.coerced}"
    return f"{nodes} {path} {sorted(info.fragments)} {info.operation.name} {values} {info.context}"


def _iterate(items: list[Any], fails: bool) -> Iterator[Any]:
    yield from items
    if fails:
        raise ValueError("no more items")


async def _iterate_later(items: list[Any], fails: bool) -> AsyncIterator[Any]:
    for each in items:
        await asyncio.sleep(0)
        yield each
    if fails:
        raise ValueError("no more items")


def _leaf(name: str, random: Random) -> Any:
    choices: dict[str, list[Any]] = {
        "Int": [1, 0, True, 2.0, "7"],
        "Float": [1.5, 2, float("inf")],
        "String": ["a", 5, True],
        "Boolean": [True, False, 1],
        "ID": ["i", 3],
        "Color": [Color.RED, Color.BLUE, "red", "GREEN"],
        "Even": [2, 4, 3, "none"],
    }
    values = choices[name]
    return random.choice(values[:2] * 3 + values)


def _directive(random: Random) -> str:
    if random.random() < 0.75:
        return ""
    return f" @{random.choice(('skip', 'include'))}(if: {random.choice(('$yes', '$no', 'true', 'false'))})"


def _arguments(random: Random) -> str:
    choices = [
        "",
        "(n: 3)",
        "(n: null, id: 5)",
        "(n: $i)",
        "(n: $d, must: $s)",
        "(place: $p)",
        '(place: $q, id: "x")',
        "(place: {x: 2, names: $s})",
        "(place: {x: 1, color: RED, next: {flag: $no}}, colors: [RED, BLUE])",
        "(colors: $c, id: $id)",
        "(colors: RED)",
        "(place: {x: 3, next: $inner})",
    ]
    return random.choice(choices)


def variables(random: Random) -> dict[str, Any]:
    """Return the variables of a request, which are sometimes invalid."""
    choices: dict[str, list[Any]] = {
        "i": [1, None],
        "d": [2, None],
        "s": ["v", "w"],
        "p": [
            {"x": 1},
            {"x": 2, "names": ["a", "b"], "color": "RED", "next": {"flag": True}},
            {"x": 3, "names": "one"},
        ],
        "q": [{"x": 4, "next": None}, None],
        "c": [["RED"], "BLUE", [None], []],
        "yes": [True, False],
        "no": [True, False, False, None],
        "id": [5, "five"],
        "inner": [{}, {"flag": None}],
    }
    wrong = {"p": {"y": 1}, "i": "x", "c": ["GREY"], "yes": None, "s": 5}
    values = {name: random.choice(each) for name, each in choices.items() if name == "yes" or random.random() < 0.6}
    if random.random() < 0.08:
        name = random.choice(list(wrong))
        values[name] = wrong[name]
    return values
