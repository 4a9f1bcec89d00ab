"""Generated request bodies that are meant to be expensive for the gateway, up to 64 KiB each."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

BODY_BYTES: Final = 64 * 1024

MARK: Final = "q7zq"
"""Part of most names and texts that are not from the schema."""

NUMBER: Final = "4242424242424242"
"""Card number in the generated numbers and texts, and in the names that are not from the schema."""

_SCHEMA_NAMES: Final = st.sampled_from(
    re.findall(
        r"\w+",
        "account accounts operations statistics topUps topUp transfer me edges node pageInfo id balance amount "
        "currency owner status cursor endCursor filter first from to types direction input number cvv __typename "
        "__schema __type transferMoney topUpAccount operationAdded",
    )
)
_TYPES: Final = st.sampled_from(
    re.findall(
        r"\w+",
        "Account Query Mutation User Money Operation TopUp ID String Int DateTime OperationFilter TopUpAccountInput "
        "TopUpAccountResult Error _Any __Type",
    )
)
_INVENTED_NAMES: Final = st.builds(
    lambda number, pad: f"{MARK}{number}{NUMBER}{'x' * pad}",
    st.integers(0, 99),
    st.sampled_from((0, 0, 0, 8, 70, 200, 60_000)),
)
_NAMES: Final = st.one_of(_SCHEMA_NAMES, _INVENTED_NAMES)
_COUNTS: Final = st.sampled_from((1, 2, 3, 10, 24, 49, 200, 700, 3_000, 30_000))
_SPACES: Final = st.sampled_from((" ", ",", "\n", "\r\n", " #" + MARK + "\n", "\n" * 50, " " * 500))


def _repeated(part: Callable[[int], str], count: int, space: str, limit: int) -> str:
    """Return up to `count` numbered parts. Stop after the part with which the total length exceeds `limit`."""
    parts, length = [], 0
    for number in range(count):
        parts.append(part(number))
        length += len(parts[-1]) + len(space)
        if length > limit:
            break
    return space.join(parts)


def _numbered(template: str, count: int, space: str, limit: int) -> str:
    """Return up to `count` copies of a template, each with its number in place of `§`."""
    return _repeated(lambda number: template.replace("§", str(number)), count, space, limit)


@st.composite
def _literals(draw: st.DrawFn, limit: int) -> str:
    count, space, name = draw(_COUNTS), draw(_SPACES), draw(_NAMES)
    depth = min(count, limit // (len(name) + 4))
    times = min(count, limit // 24)
    return draw(
        st.sampled_from(
            (
                "{" + _repeated(lambda number: f"{name}{number}:{NUMBER}", count, space, limit) + "}",
                "[" + _repeated(lambda _: f'"{MARK}{NUMBER}"', count, space, limit) + "]",
                "[" + _repeated(lambda number: f"${MARK}{number}", count, space, limit) + "]",
                "[" * depth + NUMBER + "]" * depth,
                ("{" + name + ":") * depth + NUMBER + "}" * depth,
                '"' + (MARK + NUMBER) * times + '"',
                '"""' + (f"\n {MARK}{NUMBER}") * times + '"""',
                NUMBER * times,
                f"${name}",
                "null",
                "HOUR",
                MARK,
                '"\\u{4242}"',
                "1e9999",
                f'"{NUMBER}',
            )
        )
    )


@st.composite
def _directives(draw: st.DrawFn, limit: int) -> str:
    name = draw(st.one_of(st.sampled_from(("skip", "include", "deprecated", "oneOf")), _INVENTED_NAMES))
    value = draw(_literals(limit=limit // 4))
    return _repeated(lambda _: f"@{name}(if:{value})", draw(st.sampled_from((0, 0, 0, 1, 2, 40, 700))), " ", limit)


@st.composite
def _selections(draw: st.DrawFn, limit: int, depth: int = 0) -> str:
    """Return a selection set of one to three parts, each of which may be repeated many times."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        name, space, count = draw(_NAMES), draw(_SPACES), draw(_COUNTS)
        alias = draw(st.sampled_from(("", "", "{number}:", "{mark}:", "id:")))
        arguments = ""
        if draw(st.booleans()):
            argument = draw(_NAMES)
            literal = draw(_literals(limit=limit // 4))
            arguments = _numbered(f"{argument}:{literal}", draw(st.sampled_from((1, 1, 2, 300))), " ", limit)
            arguments = f"({arguments})"
        nested = draw(_selections(limit=limit // 3, depth=depth + 1)) if depth < 5 and draw(st.booleans()) else ""
        directives = draw(_directives(limit=limit // 4)) if draw(st.booleans()) else ""
        spread = draw(st.sampled_from(("", "", "", "...", "... on ")))

        def part(
            number: int,
            *,
            name: str = name,
            alias: str = alias,
            arguments: str = arguments,
            nested: str = nested,
            directives: str = directives,
            spread: str = spread,
        ) -> str:
            if spread == "...":
                return f"...{MARK}{number}{directives}"
            if spread:
                return f"... on {name}{directives}{nested or '{id}'}"
            return alias.format(number=f"{MARK}{number}", mark=MARK) + name + arguments + directives + nested

        parts.append(_repeated(part, count, space, limit // 2))
    return "{" + draw(_SPACES).join(parts) + "}"


_PARENTS: Final = {
    "Query": "{0}",
    "Account": "account(id:1){{{0}}}",
    "User": "me{{{0}}}",
    "__Type": "__schema{{types{{{0}}}}}",
}
"""Selection of an operation that may spread a fragment, by the fragment's type. The spread replaces `{0}`."""

_SPREADS: Final = (
    "{next}",
    "{next} {next}",
    "{next} id",
    "__typename {next}",
    "{first}",
    "{first} {first} {next}",
    "{all}",
    "{all} {all}",
    "x{number}:__typename {all}",
    "...{{...{{...{{{next}}}}}}}",
    "{inline}",
    "...@skip(if:false){{{next}}} ...@include(if:true){{{next}}}",
    "account(id:1){{...on Query{{{next}}}}}",
    "ofType{{{next} {next}}}",
    "owner{{accounts{{edges{{node{{{next} {next}}}}}}}}}",
)
"""Selections of a fragment, with spreads of the next fragment, of the first one, or of up to 49 later ones."""


@st.composite
def _fragments(draw: st.DrawFn, limit: int) -> str:
    """Return operations, and fragments that spread other fragments in one or two of the ways of `_SPREADS`.

    The last fragment selects a field, spreads a fragment that does not exist, or closes a cycle.
    """
    type_ = draw(st.sampled_from(tuple(_PARENTS)))
    count = draw(st.sampled_from((1, 2, 10, 24, 48, 200)))
    spreads = draw(st.lists(st.sampled_from(_SPREADS), min_size=1, max_size=2))
    last = draw(st.sampled_from(("__typename", "__typename", f"...{MARK}{count}", f"...{MARK}0")))
    nesting = draw(st.sampled_from((1, 10, 60)))

    def fragment(number: int) -> str:
        next_ = f"...{MARK}{number + 1}"
        inner = spreads[number % len(spreads)].format(
            next=next_,
            first=f"...{MARK}0",
            all=" ".join(f"...{MARK}{other}" for other in range(number + 1, min(count, number + 50))) or "id",
            number=number,
            inline="...{" * nesting + next_ + "}" * nesting,
        )
        return f"fragment {MARK}{number} on {type_}{{{inner if number < count - 1 else last}}}"

    fragments = _repeated(fragment, count, " ", limit)
    spread = " ".join([f"...{MARK}0"] * draw(st.sampled_from((1, 1, 2, 20, 400))))
    operations = _numbered(
        f"query o§{{{_PARENTS[type_].format(spread)}}}", draw(st.sampled_from((1, 1, 2, 40))), " ", limit
    )
    return draw(st.sampled_from((f"{operations} {fragments}", f"{fragments} {operations}")))


@st.composite
def documents(draw: st.DrawFn, limit: int) -> str:
    """Return the text of a document, which is valid only by chance."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 5))
        selections = draw(_selections(limit=limit // 3))
        name, type_, count = draw(_NAMES), draw(_TYPES), draw(_COUNTS)
        if kind in (0, 1):
            operation = draw(st.sampled_from(("query", "mutation", "subscription")))
            default = draw(st.sampled_from(("", "", "=" + draw(_literals(limit=limit // 6)))))
            count = draw(st.sampled_from((1, 2, 30, 500)))
            variables = _numbered(f"${MARK}§:{type_}{default}", count, " ", limit // 3)
            parts.append(f"{operation} {name}({variables}){selections}")
        elif kind == 2:
            parts.append(selections)
        elif kind == 3:
            parts.append(draw(_fragments(limit=limit // 3)))
        else:
            parts.append(
                draw(st.sampled_from(("type X{a:Int}", "\x00", "{" * 5_000, "-" * 9_000, "}", "query", "\n" * 60_000)))
            )
    return draw(_SPACES).join(parts)[:limit]


@st.composite
def _variables(draw: st.DrawFn, limit: int) -> Any:
    count = draw(_COUNTS)
    many: list[Any] = [NUMBER] * min(count, limit // 20)
    nested: Any = NUMBER
    for _ in range(min(count, 400)):
        nested = {"input": [nested], "card": 1}
    value = draw(
        st.sampled_from(
            [
                many,
                {"types": many},
                {"types": ["TOP_UP"] * min(count, limit // 10)},
                {"minAmount": NUMBER * min(count, limit // 20), "maxAmount": NUMBER},
                ["TOP_UP"] * min(count, limit // 10),
                {"card": {f"{MARK}{number}": number for number in range(min(count, limit // 20))}},
                nested,
                [{} for _ in range(min(count, limit // 4))],
                (MARK + NUMBER) * min(count, limit // 20),
                int(NUMBER) ** 3,
                None,
            ]
        )
    )
    return {draw(st.sampled_from((f"{MARK}0", "input", "id", "f", "types"))): value, MARK: NUMBER}


_VALID_DOCUMENTS: Final = st.sampled_from(
    (
        "mutation($input: TopUpAccountInput!) { topUpAccount(input: $input) { __typename } }",
        "query($f: OperationFilter $id: ID = 1) { account(id: 1) { operations(filter: $f) { __typename } } }",
        "query($id: [ID!]! $f: [[Int!]!]) { me { id @skip(if: true) } }",
        "subscription($id: ID!) { topUpUpdated(id: $id) { id } }",
        "query($f: OperationFilter) { accounts(first: 9) { edges { node { "
        + " ".join(f"{MARK}{number}: operations(first: 1, filter: $f) {{ isComplete }}" for number in range(24))
        + " } } } }",
        "query($types: [OperationType!] = [TOP_UP]) { accounts(first: 9) { edges { node { "
        + " ".join(f"{MARK}{n}: operations(filter: {{ types: $types }}) {{ isComplete }}" for n in range(24))
        + " } } } }",
        "mutation($input: TransferMoneyInput!) { "
        + " ".join(f"{MARK}{number}: transferMoney(input: $input) {{ __typename }}" for number in range(20))
        + " }",
        f"{{ {' '.join(f'{MARK}{number}: me {{ a: accounts {{ edges {{ cursor }} }} }}' for number in range(20))} }}",
    )
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Return the body of a request: one object, or an array of two or ten; at most 64 KiB."""
    size = draw(st.sampled_from((1, 1, 2, 10)))
    limit = BODY_BYTES // size - 200
    text = draw(st.one_of(documents(limit=limit), documents(limit=limit), _fragments(limit=limit), _VALID_DOCUMENTS))
    request: dict[str, Any] = {"query": text}
    if draw(st.booleans()):
        request["variables"] = draw(_variables(limit=max(100, limit - len(text))))
    if draw(st.booleans()):
        request["operationName"] = draw(st.one_of(_INVENTED_NAMES, st.just("o0")))
    if draw(st.integers(0, 9)) == 0:
        request["documentId"] = MARK * 1_000
    if draw(st.integers(0, 9)) == 0:
        request["extensions"] = {MARK: NUMBER, "persistedQuery": {"sha256Hash": MARK}}
    body = json.dumps([request] * size if size > 1 else request).encode()
    if len(body) > BODY_BYTES:  # escapes make the text longer
        request = {"query": text[: limit // 7]}
        body = json.dumps([request] * size if size > 1 else request).encode()
    return body[:BODY_BYTES]
