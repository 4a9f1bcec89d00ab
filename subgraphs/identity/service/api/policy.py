"""Who may call the identity service. Customers are further held to themselves, by the service."""

from typing import Final

from kit.auth.access import READERS, Policy, anyone

POLICY: Final[Policy] = {
    "Register": anyone,
    "Authenticate": anyone,
    "Refresh": anyone,
    "Revoke": anyone,
    "GetUser": READERS,
    "BatchGetUsers": READERS,
}
