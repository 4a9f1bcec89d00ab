"""Who may call analytics. Customers are further held to their own accounts, by the service, which asks the bank."""

from typing import Final

from kit.auth.access import ADMIN_ACCESS, READ_ACCESS, AccessPolicy

POLICY: Final[AccessPolicy] = {
    "GetOperations": READ_ACCESS,
    "GetStatistics": READ_ACCESS,
    "WatchOperations": READ_ACCESS,
}

ADMIN: Final[AccessPolicy] = {
    "GET /integrity": ADMIN_ACCESS,
    "POST /replay": ADMIN_ACCESS,
}
"""Of the admin interface. Health and metrics are open."""
