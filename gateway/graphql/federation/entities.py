"""The field `_entities`: a federation router loads entities by their keys."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Union

import strawberry
from strawberry.federation.schema import FederationAny
from strawberry.types import get_object_definition

from wallet import inputs
from wallet.errors import InvalidInput

ENTITIES: Final = "_entities"
_FIELD: Final = "representations"


def entities_field(entities: Sequence[type]) -> Any:
    """Return the field `_entities`.

    A representation is an object with the `__typename` and the key of an entity. The results are in the order of the
    representations. Each representation is resolved separately: the result of an invalid one is null, with an error.
    Loaders batch the lookups: one RPC loads up to 1,000 entities of a type. A class with `async resolve_reference(cls,
    info, id)` resolves its references itself. Entities of other classes are built from the id alone, and their fields
    load lazily.

    Args:
        entities: entity classes; the key of each is its `id`, a UUID.
    """
    classes = {get_object_definition(each, strict=True).name: each for each in entities}
    entity = Annotated[Union[tuple(entities)], strawberry.union("_Entity")]  # type: ignore[valid-type]  # noqa: UP007  built at run time

    def resolve(info: strawberry.Info, representations: list[FederationAny]) -> list[Any]:
        return [_resolve_reference(classes, info, each) for each in representations]

    return strawberry.field(resolve, name=ENTITIES, graphql_type=list[entity | None])  # type: ignore[valid-type]


async def _resolve_reference(classes: Mapping[str, type], info: strawberry.Info, representation: Any) -> Any:
    try:
        entity, text = classes[representation["__typename"]], representation["id"]
    except (TypeError, KeyError):
        raise InvalidInput.for_field(_FIELD, "must have the __typename of an entity, and its id") from None
    try:
        id_ = inputs.parse_uuid(text)
    except (TypeError, AttributeError, ValueError):
        raise InvalidInput.for_field(_FIELD, "must have a UUID as the id of the entity") from None
    if hasattr(entity, "resolve_reference"):
        return await entity.resolve_reference(info, id_)
    return entity(id=strawberry.ID(str(id_)))
