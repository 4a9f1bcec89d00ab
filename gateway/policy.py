"""Who may ask the gateway what, as far as the token alone tells. It says no more than what each service says itself:
what a service would refuse for the role is refused here, before it is called.

A service has no business at the front door: no rule admits one.
"""

from collections.abc import Mapping
from typing import Final

from kit.auth.access import PUBLIC_ACCESS, READ_ACCESS, WRITE_ACCESS, AccessRule, allow_roles
from kit.auth.principal import Role

KNOWN: Final = allow_roles(*Role)
"""Whoever comes with a token: a user with some role."""

REST: Final[Mapping[str, AccessRule]] = {
    "POST /auth/register": PUBLIC_ACCESS,
    "POST /auth/login": PUBLIC_ACCESS,
    "POST /auth/refresh": PUBLIC_ACCESS,
    "POST /auth/logout": PUBLIC_ACCESS,
    "GET /.well-known/jwks.json": PUBLIC_ACCESS,
    "GET /me": READ_ACCESS,
    "GET /accounts": READ_ACCESS,
    "POST /accounts": WRITE_ACCESS,
    "GET /accounts/{accountId}": READ_ACCESS,
    "POST /accounts/{accountId}/transfers": WRITE_ACCESS,
    "GET /accounts/{accountId}/transfers/{transferId}": READ_ACCESS,
    "POST /accounts/{accountId}/topup": WRITE_ACCESS,
    "GET /accounts/{accountId}/topups/{topUpId}": READ_ACCESS,
    "GET /accounts/{accountId}/operations": READ_ACCESS,
}
"""By method and path, as `openapi/openapi.yaml` has them."""

OPEN_PATHS: Final = frozenset(route.partition(" ")[2] for route, rule in REST.items() if rule.is_public)
"""Where no token is looked at: not even one that has expired, which is when a new one is asked for."""

GRAPH: Final[Mapping[str, AccessRule]] = {
    "Query.me": READ_ACCESS,
    "Query.account": READ_ACCESS,
    "Query.accounts": READ_ACCESS,
    "Query.transfer": READ_ACCESS,
    "Query.topUp": READ_ACCESS,
    "Query._entities": READ_ACCESS,
    "Query._service": PUBLIC_ACCESS,
    "Mutation.transferMoney": WRITE_ACCESS,
    "Mutation.topUpAccount": WRITE_ACCESS,
    "Mutation.openAccount": WRITE_ACCESS,
    "Subscription.balanceChanged": READ_ACCESS,
    "Subscription.operationAdded": READ_ACCESS,
    "Subscription.topUpUpdated": READ_ACCESS,
}
"""By root field. What is below one is a matter of whose it is, which the services know."""
