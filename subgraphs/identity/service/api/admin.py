"""What the identity service's admin interface has beside health and metrics."""

from typing import Any

from fastapi import APIRouter, Response

from subgraphs.identity.service.adapters.keys import PUBLISHED_SECONDS, Keys


def keys_router(keys: Keys) -> APIRouter:
    """`GET /.well-known/jwks.json`: the keys that access tokens are signed with, for whoever verifies them."""
    router = APIRouter()

    @router.get("/.well-known/jwks.json")
    async def jwks(response: Response) -> Any:
        response.headers["Cache-Control"] = f"public, max-age={PUBLISHED_SECONDS}"
        return keys.document

    return router
