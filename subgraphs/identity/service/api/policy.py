"""Access rules of the identity service.

In addition, the use cases allow customers to read only themselves, and users to change only their own password.
"""

from typing import Final

from kit.auth.access import PUBLIC_ACCESS, READ_ACCESS, AccessPolicy

POLICY: Final[AccessPolicy] = {
    "Register": PUBLIC_ACCESS,
    "Authenticate": PUBLIC_ACCESS,
    "Refresh": PUBLIC_ACCESS,
    "Revoke": PUBLIC_ACCESS,
    "ChangePassword": READ_ACCESS,
    "GetUser": READ_ACCESS,
    "BatchGetUsers": READ_ACCESS,
}
