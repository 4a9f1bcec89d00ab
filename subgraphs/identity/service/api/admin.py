"""Routes of the admin interface besides health and metrics."""

from typing import Any

from fastapi import APIRouter, Response

from subgraphs.identity.service.adapters.signing_keys import MAX_AGE_SECONDS, SigningKeys


def keys_router(keys: SigningKeys) -> APIRouter:
    """Return the route `GET /.well-known/jwks.json`: the public keys that verify access tokens."""
    router = APIRouter()

    @router.get("/.well-known/jwks.json")
    async def jwks(response: Response) -> Any:
        response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
        return keys.jwks

    return router
