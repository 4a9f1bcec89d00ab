"""Access policy of the card service. The service also restricts customers to their own accounts and top-ups."""

from typing import Final

from kit.auth.access import ADMIN_ACCESS, OPERATOR_ACCESS, READ_ACCESS, WRITE_ACCESS, AccessPolicy

POLICY: Final[AccessPolicy] = {
    "ProcessCardTopUp": WRITE_ACCESS,
    "GetTopUp": READ_ACCESS,
    "BatchGetTopUps": READ_ACCESS,
    "ListTopUps": READ_ACCESS,
    "BatchListTopUps": READ_ACCESS,
    "WatchTopUp": READ_ACCESS,
}

ADMIN: Final[AccessPolicy] = {
    "GET /integrity": ADMIN_ACCESS,
    "GET /review": OPERATOR_ACCESS,
    "POST /review/deposits": ADMIN_ACCESS,
    "POST /review/{top_up_id}/retry": ADMIN_ACCESS,
    "GET /declines": OPERATOR_ACCESS,
    "POST /declines/{kind}/{attempt_id}/lift": OPERATOR_ACCESS,
}
"""Access policy of the admin routes. Health and metrics need no token."""
