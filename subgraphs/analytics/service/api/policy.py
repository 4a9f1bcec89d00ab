"""Who may call analytics. Customers are further held to their own accounts, by the service, which asks the bank."""

from typing import Final

from kit.auth.access import ADMINS, READERS, Policy

POLICY: Final[Policy] = {
    "GetOperations": READERS,
    "GetStatistics": READERS,
    "WatchOperations": READERS,
}

ADMIN: Final[Policy] = {
    "GET /integrity": ADMINS,
    "POST /replay": ADMINS,
}
"""Of the admin interface. Health and metrics are open."""
