"""Users, and how they sign in. What they prove themselves by is handed on and forgotten."""

from typing import Final

from fastapi import APIRouter, Response
from pydantic import SecretStr

from gateway.rest.route import Route
from kit.rpc import request_context
from openapi import models
from subgraphs.identity import client
from subgraphs.identity.client import IdentityClient
from wallet.inputs import Secret

_NO_STORE: Final = {"Cache-Control": "no-store"}


def user_routes(identity: IdentityClient) -> APIRouter:
    """The routes that the identity service answers."""
    router = APIRouter(route_class=Route)

    @router.post("/auth/register", status_code=201)
    async def register(body: models.Credentials) -> models.User:
        return _user(await identity.register(body.username, _secret(body.password)))

    @router.post("/auth/login")
    async def login(body: models.Credentials, response: Response) -> models.Tokens:
        response.headers.update(_NO_STORE)
        return _tokens(await identity.authenticate(body.username, _secret(body.password)))

    @router.post("/auth/refresh")
    async def refresh(body: models.RefreshToken, response: Response) -> models.Tokens:
        response.headers.update(_NO_STORE)
        return _tokens(await identity.refresh(_secret(body.refresh_token)))

    @router.post("/auth/logout", status_code=204)
    async def logout(body: models.RefreshToken) -> Response:
        await identity.revoke(_secret(body.refresh_token))
        return Response(status_code=204)  # FastAPI's own would name a media type

    @router.get("/me")
    async def get_me() -> models.User:
        return _user(await identity.user(request_context.current_principal().subject))

    return router


def _secret(text: SecretStr) -> Secret:
    return Secret(text.get_secret_value())


def _user(user: client.User) -> models.User:
    return models.User(id=user.id, username=user.username, role=models.Role(user.role), created_at=user.created_at)


def _tokens(tokens: client.Tokens) -> models.Tokens:
    return models.Tokens(
        token_type="Bearer",  # noqa: S106  the kind of token, as RFC 6750 calls it
        access_token=tokens.access,
        access_expires_at=tokens.access_expires_at,
        refresh_token=tokens.refresh,
        refresh_expires_at=tokens.refresh_expires_at,
    )
