"""`_entities`: how a federation router asks for entities of which it knows the keys."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Union

import strawberry
from strawberry.federation.schema import FederationAny
from strawberry.types.base import get_object_definition

from wallet import inputs
from wallet.errors import InvalidInput

ENTITIES: Final = "_entities"


def entities_field(entities: Sequence[type]) -> Any:
    """The field `_entities` of a graph that has these entities, each of which has its id, a UUID, for a key.

    Entities stand in the order of their representations, each resolved on its own: one that is not found, or was not
    asked for properly, is null, with its error. What they are looked up by is a loader, so those of one type are one
    call. An entity whose class has `async resolve_reference(cls, info, id)` is what that finds; any other
    is made of its id alone, and its fields find out.
    """
    by_name = {get_object_definition(each, strict=True).name: each for each in entities}
    entity = Annotated[Union[tuple(entities)], strawberry.union("_Entity")]  # type: ignore[valid-type]  # noqa: UP007  made as the program runs

    def resolve(info: strawberry.Info, representations: list[FederationAny]) -> list[Any]:
        return [_resolve(by_name, info, each) for each in representations]

    return strawberry.field(resolve, name=ENTITIES, graphql_type=list[entity | None])  # type: ignore[valid-type]


async def _resolve(entities: Mapping[str, type], info: strawberry.Info, representation: Any) -> Any:
    try:
        entity, id_ = entities[representation["__typename"]], inputs.parse_uuid(representation["id"])
    except (TypeError, KeyError, AttributeError, ValueError):
        raise InvalidInput.for_field("representations", "must have the __typename of an entity, and its id") from None
    if hasattr(entity, "resolve_reference"):
        return await entity.resolve_reference(info, id_)
    return entity(id=strawberry.ID(str(id_)))
