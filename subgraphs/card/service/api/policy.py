"""Who may call the card service. Customers are further held to their own accounts and top-ups, by the service."""

from typing import Final

from kit.auth.access import ADMIN_ACCESS, OPERATOR_ACCESS, READ_ACCESS, WRITE_ACCESS, AccessPolicy

POLICY: Final[AccessPolicy] = {
    "ProcessCardTopUp": WRITE_ACCESS,
    "GetTopUp": READ_ACCESS,
    "BatchGetTopUps": READ_ACCESS,
    "ListTopUps": READ_ACCESS,
    "WatchTopUp": READ_ACCESS,
}

ADMIN: Final[AccessPolicy] = {
    "GET /integrity": ADMIN_ACCESS,
    "GET /review": OPERATOR_ACCESS,
    "POST /review/{top_up_id}/retry": ADMIN_ACCESS,
}
"""Of the admin interface. Health and metrics are open."""
