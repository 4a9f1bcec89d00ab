"""All GraphQL operations in the repository: documentation, tests, load tests, benchmarks and examples."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from graphql import DocumentNode, GraphQLError, parse
from graphql.language import OperationDefinitionNode

from stack.process import ROOT

_FOLDERS: Final = ("benchmarks", "cli", "docs", "gateway", "loadtests", "sandbox", "stack", "tests")
_VENDORED: Final = {"node_modules", "vendor", "results"}
_IN_JSON: Final = re.compile(r'"query":\s*("(?:[^"\\]|\\.)*")')
_FENCE: Final = re.compile(r"```graphql\n(.*?)```", re.DOTALL)


_MAY_HAVE: Final = re.compile(r"query|mutation|subscription|\{ account")
_MAY_BE: Final = re.compile(r"\s*(#.*\s*)*(query|mutation|subscription|fragment|\{\s*\w)")


@cache
def example_operations() -> Sequence[tuple[str, DocumentNode]]:
    """Return the place and the document of each text that has operations. A document may be invalid for the schema."""
    return tuple(_read_operations())


def _read_operations() -> Iterator[tuple[str, DocumentNode]]:
    files = [each for folder in _FOLDERS for each in sorted((ROOT / folder).rglob("*")) if each.is_file()]
    for file in [ROOT / "README.md", *files]:
        if not _VENDORED & set(file.relative_to(ROOT).parts) and file.suffix in {
            ".md",
            ".py",
            ".graphql",
            ".js",
            ".json",
        }:
            for text in _texts(file):
                document = _parse(text)
                if document is not None:
                    yield f"{file.relative_to(ROOT)}: {' '.join(text.split())[:60]}", document


def _texts(file: Path) -> Iterator[str]:
    text = file.read_text(errors="replace")
    if not _MAY_HAVE.search(text):
        return
    if file.suffix == ".graphql":
        yield text
    elif file.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _MAY_BE.match(node.value):
                yield node.value
    else:
        yield from (json.loads(each) for each in _IN_JSON.findall(text))
        yield from _FENCE.findall(text)


def _parse(text: str) -> DocumentNode | None:
    try:
        document = parse(text, max_tokens=5_000)
    except (GraphQLError, RecursionError):
        return None
    return document if any(isinstance(each, OperationDefinitionNode) for each in document.definitions) else None
