"""Authentication of HTTP requests by their bearer token."""

from collections.abc import Mapping

from starlette.types import Scope

from gateway.policy import ANY_USER, PUBLIC_PATHS, PUBLIC_PREFIXES
from kit.auth.bearer import parse_bearer, parse_bearer_lines
from kit.auth.principal import TokenVerifier
from kit.rpc import request_context
from wallet.errors import WalletError

_HEADER = b"authorization"


async def authenticate(verifier: TokenVerifier, scope: Scope, headers: Mapping[bytes, bytes]) -> WalletError | None:
    """Verify the token and put its principal into the request context.

    Requests without a token stay anonymous; each route decides whether it needs a caller. On public paths the header is
    ignored: a caller refreshes an expired token there, and monitoring may send its own header. The GraphQL endpoint
    authenticates WebSockets itself.

    Args:
        verifier: validates bearer tokens.
        scope: ASGI scope.
        headers: the scope's headers by name.

    Returns:
        The error if the token is refused, otherwise None. The error is returned, not raised, so that refused requests
        count for the rate limit.
    """
    if _HEADER not in headers or scope["type"] != "http":
        return None
    if scope["path"] in PUBLIC_PATHS or scope["path"].startswith(PUBLIC_PREFIXES):
        return None
    if scope["method"] != "POST" and _is_graphiql(scope, headers):
        return None
    try:
        if len(headers) == len(scope["headers"]):  # no header is repeated
            token = parse_bearer(headers[_HEADER].decode("latin-1"))
        else:
            lines = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
            token = parse_bearer_lines(lines)
        if not token:
            return None
        caller = await verifier.verify(token)
        ANY_USER.check(caller)
    except WalletError as error:
        return error
    request_context.current_request.set(request_context.current_request.get().with_principal(caller, token))
    return None


def _is_graphiql(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a browser requests GraphiQL. Without a query string such a request executes nothing."""
    return (
        scope["method"] in {"GET", "HEAD"}
        and not scope["query_string"]
        and scope["path"].endswith("/graphql")
        and b"text/html" in headers.get(b"accept", b"")
    )
