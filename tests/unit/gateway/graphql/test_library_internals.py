"""Private parts of a library are used in one module, `*_internals.py`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.process import ROOT

SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
INTERNALS = [file for file in SOURCES if file.name.endswith("_internals.py")]
PRIVATE_NAMES = {
    "DEFINITION_BACKREF",
    "GraphQLCoreConverter",
    "Parser",
    "StrawberryGraphQLCoreExecutionContext",
    "advance_lexer",
    "async_helpers",
    "collect_subfields",
    "execute_field",
    "execution_context_class",
    "executor_class",
    "from_input",
    "is_default_resolver",
}
"""Names of Strawberry and graphql-core that look public, but may change in any release."""


def violations(source: str) -> Iterator[str]:
    """Yield uses of `PRIVATE_NAMES`, and of attributes of other objects that begin with an underscore."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")) | ast.Attribute(value=ast.Call(ast.Name("super"))):
                name = node.attr if node.attr in PRIVATE_NAMES else ""
            case ast.Attribute(attr=name):
                name = name if is_private(name) else ""
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
        "from graphql.language.parser import Parser",
        "from strawberry.schema._graphql_core import execute",
    ],
)
def test_use_of_a_private_name_is_found(source: str) -> None:
    assert list(violations(source))


@pytest.mark.parametrize(
    "file", [file for file in SOURCES if file not in INTERNALS], ids=lambda file: str(file.relative_to(ROOT))
)
def test_private_names_are_used_in_the_internals_modules_only(file: Path) -> None:
    assert list(violations(file.read_text())) == []


@pytest.mark.parametrize("file", INTERNALS, ids=lambda file: file.name)
def test_internals_module_uses_private_names(file: Path) -> None:
    assert list(violations(file.read_text()))
