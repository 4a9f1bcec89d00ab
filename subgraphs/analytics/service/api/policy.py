"""Access policy of analytics: the roles that may call each method. The use cases check account ownership."""

from typing import Final

from kit.auth.access import ADMIN_ACCESS, READ_ACCESS, AccessPolicy

POLICY: Final[AccessPolicy] = {
    "GetOperations": READ_ACCESS,
    "BatchGetOperations": READ_ACCESS,
    "GetStatistics": READ_ACCESS,
    "WatchOperations": READ_ACCESS,
}

ADMIN: Final[AccessPolicy] = {
    "GET /integrity": ADMIN_ACCESS,
    "POST /replay": ADMIN_ACCESS,
}
"""Routes of the admin port. Health and metrics need no token."""
