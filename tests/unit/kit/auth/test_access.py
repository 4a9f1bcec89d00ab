"""Access rules."""

import pytest

from kit.auth.access import PUBLIC_ACCESS, READ_ACCESS, WRITE_ACCESS, AccessRule, allow_roles, allow_services
from kit.auth.principal import Principal, Role
from wallet.errors import PermissionDenied


def user(*roles: Role) -> Principal:
    return Principal("users", "alice", is_service=False, expires_at=0, roles=frozenset(roles))


def service(name: str) -> Principal:
    return Principal(name, name, is_service=True, expires_at=0)


def admits(rule: AccessRule, caller: Principal) -> bool:
    try:
        rule.check(caller)
    except PermissionDenied:
        return False
    return True


class TestRule:
    def test_user_is_allowed_by_any_of_its_roles(self) -> None:
        rule = allow_roles(Role.OPERATOR, Role.ADMIN)
        assert admits(rule, user(Role.OPERATOR))
        assert admits(rule, user(Role.CUSTOMER, Role.ADMIN))
        assert not admits(rule, user(Role.CUSTOMER))

    @pytest.mark.parametrize("rule", [WRITE_ACCESS, READ_ACCESS, allow_roles(*Role), allow_services("alice")])
    def test_user_without_a_role_is_refused(self, rule: AccessRule) -> None:
        assert not admits(rule, user())

    def test_service_is_allowed_by_its_name(self) -> None:
        assert admits(allow_services("card", "analytics"), service("card"))
        assert not admits(allow_services("card"), service("analytics"))

    @pytest.mark.parametrize("rule", [WRITE_ACCESS, READ_ACCESS, allow_roles(*Role)])
    def test_role_rule_refuses_services(self, rule: AccessRule) -> None:
        assert not admits(rule, service("card"))

    def test_combined_rule_allows_callers_that_either_rule_allows(self) -> None:
        rule = allow_roles(Role.CUSTOMER) | allow_services("card")
        assert admits(rule, user(Role.CUSTOMER))
        assert admits(rule, service("card"))
        assert not admits(rule, user(Role.OPERATOR))
        assert not admits(rule, service("analytics"))

    def test_public_rule_allows_everybody(self) -> None:
        assert admits(PUBLIC_ACCESS, user())
        assert admits(PUBLIC_ACCESS | allow_services("card"), service("analytics"))
