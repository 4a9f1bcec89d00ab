"""Access rules of the gateway, by the caller's role alone.

The services enforce the same rules. The gateway checks them first, so it makes no call that a service would reject
because of the role. Ownership is checked by the services. No rule admits a service's token, because services do not
call the gateway.
"""

from collections.abc import Mapping
from typing import Final

from kit.auth.access import (
    ADMIN_ACCESS,
    OPERATOR_ACCESS,
    PUBLIC_ACCESS,
    READ_ACCESS,
    WRITE_ACCESS,
    AccessRule,
    allow_roles,
)
from kit.auth.principal import Role

ANY_USER: Final = allow_roles(*Role)
"""Any user with a valid token and a known role."""

REST_RULES: Final[Mapping[str, AccessRule]] = {
    "POST /auth/register": PUBLIC_ACCESS,
    "POST /auth/login": PUBLIC_ACCESS,
    "POST /auth/refresh": PUBLIC_ACCESS,
    "POST /auth/logout": PUBLIC_ACCESS,
    "POST /auth/password": ANY_USER,
    "GET /.well-known/jwks.json": PUBLIC_ACCESS,
    "GET /me": READ_ACCESS,
    "GET /accounts": READ_ACCESS,
    "POST /accounts": WRITE_ACCESS,
    "GET /accounts/{accountId}": READ_ACCESS,
    "GET /accounts/{accountId}/balance": READ_ACCESS,
    "POST /accounts/{accountId}/close": WRITE_ACCESS,
    "POST /accounts/{accountId}/freeze": OPERATOR_ACCESS,
    "POST /accounts/{accountId}/thaw": OPERATOR_ACCESS,
    "POST /accounts/{accountId}/floor": ADMIN_ACCESS,
    "GET /accounts/{accountId}/changes": ADMIN_ACCESS,
    "GET /accounts/{accountId}/transfers": READ_ACCESS,
    "POST /accounts/{accountId}/transfers": WRITE_ACCESS,
    "POST /transfers/batch": WRITE_ACCESS,
    "GET /accounts/{accountId}/transfers/{transferId}": READ_ACCESS,
    "POST /accounts/{accountId}/topup": WRITE_ACCESS,
    "GET /accounts/{accountId}/topups/{topUpId}": READ_ACCESS,
    "GET /accounts/{accountId}/operations": READ_ACCESS,
}
"""Rules of the REST API by method and path, spelled as in `openapi/openapi.yaml`."""

PUBLIC_PATHS: Final = frozenset(
    {route.partition(" ")[2] for route, rule in REST_RULES.items() if rule.is_public}
    | {"/docs", "/openapi.json", "/openapi.yaml", "/problems"}
)
"""Paths on which the header `Authorization` is ignored, so that an expired token does not prevent a new login."""

PUBLIC_PREFIXES: Final = ("/assets/", "/health/", "/problems/")
"""Prefixes of further paths on which `Authorization` is ignored: monitoring and proxies may send their own value."""

AUTH_PREFIX: Final = "/auth/"
"""Prefix of the paths that receive passwords or refresh tokens."""

SESSION_PATHS: Final = frozenset({"/auth/refresh", "/auth/logout"})
"""Paths that receive refresh tokens. They have a rate limit of their own, so that logins cannot use it up."""

GRAPH_RULES: Final[Mapping[str, AccessRule]] = {
    "Query.me": READ_ACCESS,
    "Query.account": READ_ACCESS,
    "Query.accounts": READ_ACCESS,
    "Query.transfer": READ_ACCESS,
    "Query.topUp": READ_ACCESS,
    "Query.node": READ_ACCESS,
    "Query.nodes": READ_ACCESS,
    "Query._entities": READ_ACCESS,
    "Query._service": PUBLIC_ACCESS,
    "Mutation.transferMoney": WRITE_ACCESS,
    "Mutation.transferMoneyBatch": WRITE_ACCESS,
    "Mutation.topUpAccount": WRITE_ACCESS,
    "Mutation.openAccount": WRITE_ACCESS,
    "Mutation.closeAccount": WRITE_ACCESS,
    "Mutation.freezeAccount": OPERATOR_ACCESS,
    "Mutation.thawAccount": OPERATOR_ACCESS,
    "Mutation.setAccountFloor": ADMIN_ACCESS,
    "Subscription.balanceChanged": READ_ACCESS,
    "Subscription.operationAdded": READ_ACCESS,
    "Subscription.topUpUpdated": READ_ACCESS,
}
"""Rules of the graph by root field. Access to nested fields depends on ownership, which the services check."""
