"""GraphQL types of users."""

from datetime import datetime
from enum import Enum
from typing import Protocol, Self
from uuid import UUID

import strawberry

from subgraphs.identity import client
from subgraphs.identity.graph.loaders import UserLoader


class Context(Protocol):
    """Attributes of the request context that the resolvers of users use."""

    @property
    def users(self) -> UserLoader: ...


Info = strawberry.Info[Context, None]


@strawberry.enum(description="Role of a user.")
class Role(Enum):
    CUSTOMER = strawberry.enum_value("CUSTOMER", description="Reads own accounts, and moves money from them.")
    OPERATOR = strawberry.enum_value("OPERATOR", description="Reads all accounts, and moves no money.")
    ADMIN = strawberry.enum_value("ADMIN", description="Reads all accounts, and moves money between them.")


@strawberry.federation.type(keys=["id"], description="A user, who logs in and owns accounts.")
class User:
    id: strawberry.ID
    loaded: strawberry.Private[client.User | None] = None

    @classmethod
    def from_client(cls, user: client.User) -> Self:
        """Convert a `client.User`."""
        return cls(id=strawberry.ID(user.id), loaded=user)

    @classmethod
    async def resolve_reference(cls, info: Info, id: UUID) -> Self:  # noqa: A002  the name of the key field
        return cls.from_client(await info.context.users.load(str(id)))

    @strawberry.field
    async def username(self, info: Info) -> str:
        return (await _load_user(self, info)).username

    @strawberry.field
    async def role(self, info: Info) -> Role:
        return Role((await _load_user(self, info)).role)

    @strawberry.field
    async def created_at(self, info: Info) -> datetime:
        return (await _load_user(self, info)).created_at


async def _load_user(user: User, info: Info) -> client.User:
    return getattr(user, "loaded", None) or await info.context.users.load(user.id)
