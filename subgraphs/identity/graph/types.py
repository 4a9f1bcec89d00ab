"""What identity contributes to the graph: users."""

from datetime import datetime
from enum import Enum
from typing import Protocol, Self
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from kit.rpc import request_context
from subgraphs.identity import client
from subgraphs.identity.client import IdentityClient
from wallet import loading

UserLoader = DataLoader[str, client.User]


class Context(Protocol):
    """What the resolvers need of a request."""

    @property
    def users(self) -> UserLoader: ...


Info = strawberry.Info[Context, None]


def user_loader(identity: IdentityClient) -> UserLoader:
    """Users in one RPC a tick."""
    return loading.batch_loader(identity.users)


@strawberry.enum(description="What a user is.")
class Role(Enum):
    CUSTOMER = strawberry.enum_value("CUSTOMER", description="Reads, and moves money from, their own accounts.")
    OPERATOR = strawberry.enum_value("OPERATOR", description="Reads all accounts, moves nothing.")
    ADMIN = strawberry.enum_value("ADMIN", description="Reads and moves all.")


@strawberry.federation.type(keys=["id"], description="Somebody who signs in.")
class User:
    id: strawberry.ID
    loaded: strawberry.Private[client.User | None] = None

    @classmethod
    def of(cls, user: client.User) -> Self:
        """The same user for the graph."""
        return cls(id=strawberry.ID(user.id), loaded=user)

    @classmethod
    async def resolve_reference(cls, info: Info, id: UUID) -> Self:  # noqa: A002  the key's name
        return cls.of(await info.context.users.load(str(id)))

    @strawberry.field
    async def username(self, info: Info) -> str:
        return (await _user(self, info)).username

    @strawberry.field
    async def role(self, info: Info) -> Role:
        return Role((await _user(self, info)).role)

    @strawberry.field
    async def created_at(self, info: Info) -> datetime:
        return (await _user(self, info)).created_at


async def _user(user: User, info: Info) -> client.User:
    return getattr(user, "loaded", None) or await info.context.users.load(user.id)


@strawberry.type
class Query:
    @strawberry.field(description="Who the caller is, by the token.")
    async def me(self) -> User | None:
        return User(id=strawberry.ID(request_context.current_principal().subject))
