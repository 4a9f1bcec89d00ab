"""Route of the public keys that verify users' tokens."""

from typing import Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.responses import Response

from gateway.rest.guarded_route import GuardedRoute
from kit.auth.principal import TokenVerifier
from wallet.errors import Unavailable

_CACHE_SECONDS: Final = 60
"""Time for which clients may cache the keys. A service that reads the keys from a URL reads them every minute, too."""


def signing_key_routes(verifier: TokenVerifier) -> APIRouter:
    """Build the route of `/.well-known/jwks.json`.

    It serves the gateway's copy of the keys, also while the issuer is down.
    """
    router = APIRouter(route_class=GuardedRoute)

    @router.get("/.well-known/jwks.json")
    async def get_signing_keys() -> Response:
        if verifier.user_jwks is None:
            raise Unavailable("the issuer's keys")
        return JSONResponse(verifier.user_jwks, headers={"Cache-Control": f"max-age={_CACHE_SECONDS}"})

    return router
