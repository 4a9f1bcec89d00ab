"""Merges the classes of several subgraphs: root types and entities.

The merged class inherits from the classes of all subgraphs, so it has the fields of all of them. A resolver may return
the class of any subgraph.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import strawberry
from strawberry.federation.schema_directives import Key
from strawberry.types import get_object_definition


def merge_root_type(name: str, modules: Sequence[ModuleType], fields: Mapping[str, Any] | None = None) -> Any:
    """Return the root type with the fields of all subgraphs; None if it has no fields.

    Args:
        name: `Query`, `Mutation` or `Subscription`.
        modules: graph packages of the subgraphs.
        fields: further fields, by Python name.
    """
    classes = tuple(getattr(module, name) for module in modules if hasattr(module, name))
    return strawberry.type(type(name, classes, dict(fields or {}))) if classes or fields else None


def merge_entities(modules: Sequence[ModuleType]) -> list[type]:
    """Return one class for each entity, sorted by name, with the fields of all subgraphs.

    Args:
        modules: graph packages of the subgraphs.
    """
    classes: dict[str, list[type]] = {}
    for module in modules:
        for value in vars(module).values():
            definition = get_object_definition(value) if isinstance(value, type) else None
            if definition is not None and _keys(value):
                classes.setdefault(definition.name, []).append(value)
    return [same[0] if len(same) == 1 else _merge_entity(name, same) for name, same in sorted(classes.items())]


def _merge_entity(name: str, classes: Sequence[type]) -> type:
    definitions = [get_object_definition(each, strict=True) for each in classes]
    description = next((definition.description for definition in definitions if definition.description), None)
    # Of several keys with the same fields the last one is used, so resolvable keys are sorted to the end.
    keys = {
        str(key.fields): key for key in sorted((key for each in classes for key in _keys(each)), key=_is_resolvable)
    }
    directives = [keys[fields] for fields in sorted(keys)]
    return strawberry.federation.type(type(name, tuple(classes), {}), keys=directives, description=description)


def _keys(entity: type) -> list[Key]:
    directives = get_object_definition(entity, strict=True).directives or ()
    return [directive for directive in directives if isinstance(directive, Key)]


def _is_resolvable(key: Key) -> bool:
    return key.resolvable is not False
