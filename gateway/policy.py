"""Who may ask the gateway what, as far as the token alone tells. It says no more than what each service says itself:
what a service would refuse for the role is refused here, before it is called.

A service has no business at the front door: no rule admits one.
"""

from collections.abc import Mapping
from typing import Final

from kit.auth.access import MOVERS, READERS, Rule, anyone, users
from kit.auth.principal import Role

KNOWN: Final = users(*Role)
"""Whoever comes with a token: a user with some role."""

REST: Final[Mapping[str, Rule]] = {
    "POST /auth/register": anyone,
    "POST /auth/login": anyone,
    "POST /auth/refresh": anyone,
    "POST /auth/logout": anyone,
    "GET /.well-known/jwks.json": anyone,
    "GET /me": READERS,
    "GET /accounts": READERS,
    "POST /accounts": MOVERS,
    "GET /accounts/{accountId}": READERS,
    "POST /accounts/{accountId}/transfers": MOVERS,
    "GET /accounts/{accountId}/transfers/{transferId}": READERS,
    "POST /accounts/{accountId}/topup": MOVERS,
    "GET /accounts/{accountId}/topups/{topUpId}": READERS,
    "GET /accounts/{accountId}/operations": READERS,
}
"""By method and path, as `openapi/openapi.yaml` has them."""

OPEN_PATHS: Final = frozenset(route.partition(" ")[2] for route, rule in REST.items() if rule.is_open)
"""Where no token is looked at: not even one that has expired, which is when a new one is asked for."""

GRAPH: Final[Mapping[str, Rule]] = {
    "Query.me": READERS,
    "Query.account": READERS,
    "Query.accounts": READERS,
    "Query.transfer": READERS,
    "Query.topUp": READERS,
    "Query._entities": READERS,
    "Query._service": anyone,
    "Mutation.transferMoney": MOVERS,
    "Mutation.topUpAccount": MOVERS,
    "Mutation.openAccount": MOVERS,
    "Subscription.balanceChanged": READERS,
    "Subscription.operationAdded": READERS,
    "Subscription.topUpUpdated": READERS,
}
"""By root field. What is below one is a matter of whose it is, which the services know."""
