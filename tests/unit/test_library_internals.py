"""Private parts of a library are used in one place: a module `*_internals.py`, or a package `*_internals`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.process import ROOT

PACKAGES = ("gateway", "kit", "subgraphs", "wallet", "sandbox", "stack", "cli", "loadtests", "benchmarks")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
INTERNALS = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*_internals*") if path.suffix in {"", ".py"}
)
"""Modules and packages that may use private parts of one library."""
PRIVATE_NAMES = {
    "DEFINITION_BACKREF",
    "GraphQLCoreConverter",
    "HttpToolsProtocol",
    "Parser",
    "StrawberryGraphQLCoreExecutionContext",
    "WebSocketsSansIOProtocol",
    "_cancel_current_command",
    "advance_lexer",
    "async_helpers",
    "build_per_event_executor",
    "collect_subfields",
    "execute_field",
    "execution_context_class",
    "executor_class",
    "from_input",
    "is_default_resolver",
}
"""Names in libraries that look public but may change in any release, and private methods that we override."""
PUBLIC_NAMES = {"_exit", "_replace"}
"""Documented names that begin with an underscore: of `os`, and of named tuples."""


def find_violations(source: str) -> Iterator[str]:
    """Yield uses of `PRIVATE_NAMES`, and of attributes of other objects that begin with an underscore.

    Names of attributes and functions that the source itself defines are not reported.
    """
    tree = ast.parse(source)
    own = set(list_own_names(tree)) | PUBLIC_NAMES
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")) | ast.Attribute(value=ast.Call(ast.Name("super"))):
                name = node.attr if node.attr in PRIVATE_NAMES else ""
            case ast.Attribute(attr=name):
                name = name if is_private(name) and name not in own else ""
            case ast.alias(name=name) | ast.Name(id=name) | ast.FunctionDef(name=name) | ast.keyword(arg=str(name)):
                name = name if name in PRIVATE_NAMES else ""
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                name = name if is_private(name) else ""
            case ast.ImportFrom(module=str(module)):
                name = module if any(part.startswith("_") for part in module.split(".")[1:]) else ""
            case _:
                name = ""
        if name:
            yield f"{getattr(node, 'lineno', 0)}: {name}"


def list_own_names(tree: ast.AST) -> Iterator[str]:
    """Yield the functions that a module defines, and the attributes that it assigns to `self` or `cls`."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name


def is_private(name: str) -> bool:
    return name in PRIVATE_NAMES or (name.startswith("_") and not name.startswith("__"))


@pytest.mark.parametrize(
    "source",
    [
        "schema._schema",
        "getattr(resolve, '_is_default', False)",
        "self.execution_context._provided_operation_name",
        "definition.from_input = f",
        "class P(Executor):\n    def collect_subfields(self): ...",
        "producer._sender.close()",
        "from graphql.language.parser import Parser",
        "from strawberry.schema._graphql_core import execute",
    ],
)
def test_use_of_a_private_name_is_found(source: str) -> None:
    assert list(find_violations(source))


@pytest.mark.parametrize(
    "source",
    [
        "class P:\n    def __init__(self): self._parts = []\n    def add(self, other): self._parts += other._parts",
        "class P:\n    @classmethod\n    def open(cls): cls()._read()\n    def _read(self): ...",
        "os._exit(1)",
    ],
)
def test_own_private_name_is_no_violation(source: str) -> None:
    assert list(find_violations(source)) == []


@pytest.mark.parametrize(
    "file",
    [file for file in SOURCES if not {file, file.parent} & set(INTERNALS)],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_private_names_are_used_in_the_internals_only(file: Path) -> None:
    assert list(find_violations(file.read_text())) == []


@pytest.mark.parametrize("internals", INTERNALS, ids=lambda path: path.stem)
def test_internals_have_a_test(internals: Path) -> None:
    assert list((ROOT / "tests/unit").rglob(f"test_{internals.stem}.py"))


@pytest.mark.parametrize("internals", INTERNALS, ids=lambda path: path.stem)
def test_internals_use_private_names(internals: Path) -> None:
    files = [internals] if internals.is_file() else list(internals.glob("*.py"))
    assert any(list(find_violations(file.read_text())) for file in files)
