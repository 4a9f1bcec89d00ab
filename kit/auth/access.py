"""Who may make which call, as far as the token alone tells. Whose the account is, the services know."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kit.auth.principal import Principal, Role
from wallet.errors import PermissionDenied


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may make a call. `|` of two rules admits whom either does.

    Attributes:
        roles: users who have one of these.
        services: services of these names.
        is_open: everybody, with or without a token; a token that comes nevertheless is not looked at.
    """

    roles: frozenset[Role] = frozenset()
    services: frozenset[str] = frozenset()
    is_open: bool = False

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(self.roles | other.roles, self.services | other.services, self.is_open or other.is_open)

    def check(self, caller: Principal) -> None:
        """Returns when the caller may make the call.

        Raises:
            PermissionDenied: it may not.
        """
        names, admitted = ({caller.subject}, self.services) if caller.is_service else (caller.roles, self.roles)
        if admitted.isdisjoint(names) and not self.is_open:
            raise PermissionDenied


Policy = Mapping[str, Rule]
"""The rule of each call, by the name of its gRPC method, or by method and path where it is HTTP."""

anyone: Final = Rule(is_open=True)
"""Whoever comes, as they are."""


def users(*roles: Role) -> Rule:
    """Users who have one of these roles."""
    return Rule(roles=frozenset(roles))


def services(*names: str) -> Rule:
    """Services of these names."""
    return Rule(services=frozenset(names))


MOVERS: Final = users(Role.CUSTOMER, Role.ADMIN)
"""Who moves something: a customer their own, an admin anything."""

ADMINS: Final = users(Role.ADMIN)
"""Who has a service prove or mend itself."""

OPERATORS: Final = users(Role.OPERATOR, Role.ADMIN)
"""Who looks at what a service cannot end by itself."""

READERS: Final = users(Role.CUSTOMER, Role.OPERATOR, Role.ADMIN)
"""Who reads something: a customer their own, an operator and an admin anything."""
