"""Routes of users, login, logout and passwords.

Passwords and tokens are passed on to identity and never stored or logged.
"""

from typing import Final

from fastapi import APIRouter, Response
from pydantic import SecretStr

from gateway.http.work_limits import WorkLimits, hold_for_request
from gateway.rest.guarded_route import GuardedRoute
from kit.rpc import request_context
from openapi import models
from subgraphs.identity import client
from subgraphs.identity.client import IdentityClient
from wallet.errors import DeadlineExceeded, Unavailable
from wallet.inputs import Secret

_AFTER_UNKNOWN_REGISTRATION: Final = "log in to find out whether the user was created; if not, register again"
_NO_STORE: Final = {"Cache-Control": "no-store"}


def user_routes(identity: IdentityClient, work: WorkLimits) -> APIRouter:
    """Build the routes of `/auth/…` and `/me`."""
    router = APIRouter(route_class=GuardedRoute)

    @router.post("/auth/register", status_code=201)
    async def register(body: models.Credentials) -> models.User:
        try:
            async with hold_for_request(work.passwords, by_address=True):
                return user_to_rest(await identity.register(body.username, _secret(body.password)))
        except (Unavailable, DeadlineExceeded) as error:
            error.next_step = _AFTER_UNKNOWN_REGISTRATION
            raise

    @router.post("/auth/login")
    async def login(body: models.Credentials, response: Response) -> models.Tokens:
        response.headers.update(_NO_STORE)
        async with hold_for_request(work.passwords, by_address=True):
            return tokens_to_rest(await identity.authenticate(body.username, _secret(body.password)))

    @router.post("/auth/refresh")
    async def refresh(body: models.RefreshToken, response: Response) -> models.Tokens:
        response.headers.update(_NO_STORE)
        return tokens_to_rest(await identity.refresh(_secret(body.refresh_token)))

    @router.post("/auth/logout", status_code=204)
    async def logout(body: models.RefreshToken) -> Response:
        await identity.revoke(_secret(body.refresh_token))
        return Response(status_code=204)  # FastAPI's default response would have a Content-Type

    @router.post("/auth/password", status_code=204)
    async def change_password(body: models.PasswordChange) -> Response:
        async with hold_for_request(work.passwords, by_address=True):
            await identity.change_password(_secret(body.current_password), _secret(body.new_password))
        return Response(status_code=204)

    @router.get("/me")
    async def get_me() -> models.User:
        return user_to_rest(await identity.get_user(request_context.current_principal().subject))

    return router


def _secret(text: SecretStr) -> Secret:
    return Secret(text.get_secret_value())


def user_to_rest(user: client.User) -> models.User:
    """Convert a user to the contract's model."""
    return models.User(id=user.id, username=user.username, role=models.Role(user.role), created_at=user.created_at)


def tokens_to_rest(tokens: client.Tokens) -> models.Tokens:
    """Convert a pair of tokens to the contract's model."""
    return models.Tokens(
        token_type="Bearer",  # noqa: S106  the token type of RFC 6750, not a secret
        access_token=tokens.access,
        access_expires_at=tokens.access_expires_at,
        refresh_token=tokens.refresh,
        refresh_expires_at=tokens.refresh_expires_at,
    )
