"""Authentication of HTTP requests by their bearer token."""

from starlette.types import Scope

from gateway.policy import ANY_USER, PUBLIC_PATHS
from kit.auth.principal import TokenVerifier
from kit.rpc import request_context
from wallet.errors import WalletError


async def authenticate(verifier: TokenVerifier, scope: Scope, authorization: bytes | None) -> WalletError | None:
    """Verify the token and put its principal into the request context.

    Requests without a token stay anonymous; each route decides whether it needs a caller. Tokens are not verified on
    public paths, because a caller refreshes an expired token there. A WebSocket authenticates with its first message.

    Args:
        verifier: validates bearer tokens.
        scope: ASGI scope.
        authorization: value of the `Authorization` header, if any.

    Returns:
        The error of an invalid token. It is returned, not raised, so that rejected requests count for the rate limit.
    """
    if authorization is None or scope["type"] != "http" or scope["path"] in PUBLIC_PATHS:
        return None
    token = authorization.decode("latin-1").removeprefix("Bearer").strip()
    if not token:
        return None
    try:
        caller = await verifier.verify(token)
        ANY_USER.check(caller)
    except WalletError as error:
        return error
    request_context.current_request.set(request_context.current_request.get().with_principal(caller, token))
    return None
