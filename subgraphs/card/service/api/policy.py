"""Who may call the card service. Customers are further held to their own accounts and top-ups, by the service."""

from typing import Final

from kit.auth.access import ADMINS, MOVERS, OPERATORS, READERS, Policy

POLICY: Final[Policy] = {
    "ProcessCardTopUp": MOVERS,
    "GetTopUp": READERS,
    "BatchGetTopUps": READERS,
    "ListTopUps": READERS,
    "WatchTopUp": READERS,
}

ADMIN: Final[Policy] = {
    "GET /integrity": ADMINS,
    "GET /review": OPERATORS,
    "POST /review/{top_up_id}/retry": ADMINS,
}
"""Of the admin interface. Health and metrics are open."""
