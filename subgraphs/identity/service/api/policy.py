"""Who may call the identity service. Customers are further held to themselves, by the service."""

from typing import Final

from kit.auth.access import PUBLIC_ACCESS, READ_ACCESS, AccessPolicy

POLICY: Final[AccessPolicy] = {
    "Register": PUBLIC_ACCESS,
    "Authenticate": PUBLIC_ACCESS,
    "Refresh": PUBLIC_ACCESS,
    "Revoke": PUBLIC_ACCESS,
    "GetUser": READ_ACCESS,
    "BatchGetUsers": READ_ACCESS,
}
