"""Access rules: the roles and services that may make a call. Ownership of an account is checked by the services."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kit.auth.principal import Principal, Role
from wallet.errors import PermissionDenied


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Callers that may make a call. `a | b` allows a caller that either rule allows.

    Attributes:
        roles: users with one of these roles are allowed.
        services: services with one of these names are allowed.
        is_public: all callers are allowed; a token, if there is one, is not verified.
    """

    roles: frozenset[Role] = frozenset()
    services: frozenset[str] = frozenset()
    is_public: bool = False

    def __or__(self, other: "AccessRule") -> "AccessRule":
        return AccessRule(
            self.roles | other.roles, self.services | other.services, is_public=self.is_public or other.is_public
        )

    def check(self, caller: Principal) -> None:
        """Check that the caller may make the call.

        Raises:
            PermissionDenied: the caller is a user without one of the roles, or a service that the rule does not name.
        """
        names, allowed = ({caller.subject}, self.services) if caller.is_service else (caller.roles, self.roles)
        if allowed.isdisjoint(names) and not self.is_public:
            raise PermissionDenied


AccessPolicy = Mapping[str, AccessRule]
"""Rule of each call. Key: name of the gRPC method, or method and path of the HTTP route."""

PUBLIC_ACCESS: Final = AccessRule(is_public=True)
"""Calls that everybody may make without a token."""


def allow_roles(*roles: Role) -> AccessRule:
    """Return a rule that allows users with one of the roles."""
    return AccessRule(roles=frozenset(roles))


def allow_services(*names: str) -> AccessRule:
    """Return a rule that allows the named services."""
    return AccessRule(services=frozenset(names))


READ_ACCESS: Final = allow_roles(Role.CUSTOMER, Role.OPERATOR, Role.ADMIN)
"""Calls that read: customers read their own data, operators and admins read all data. Also calls that every user may
make, such as changing the password.
"""

WRITE_ACCESS: Final = allow_roles(Role.CUSTOMER, Role.ADMIN)
"""Calls that move money or open and close accounts: customers for their own accounts, admins for all accounts."""

OPERATOR_ACCESS: Final = allow_roles(Role.OPERATOR, Role.ADMIN)
"""Calls for the manual work of operators, such as the list of cases that need review."""

ADMIN_ACCESS: Final = allow_roles(Role.ADMIN)
"""Calls for maintenance, such as an integrity check or a repair."""
