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
    def test_users_are_admitted_by_any_role_that_they_have(self) -> None:
        rule = allow_roles(Role.OPERATOR, Role.ADMIN)
        assert admits(rule, user(Role.OPERATOR))
        assert admits(rule, user(Role.CUSTOMER, Role.ADMIN))
        assert not admits(rule, user(Role.CUSTOMER))

    @pytest.mark.parametrize("rule", [WRITE_ACCESS, READ_ACCESS, allow_roles(*Role), allow_services("alice")])
    def test_a_user_without_a_role_is_admitted_nowhere(self, rule: AccessRule) -> None:
        assert not admits(rule, user())

    def test_services_are_admitted_by_name(self) -> None:
        assert admits(allow_services("card", "analytics"), service("card"))
        assert not admits(allow_services("card"), service("analytics"))

    @pytest.mark.parametrize("rule", [WRITE_ACCESS, READ_ACCESS, allow_roles(*Role)])
    def test_what_users_may_no_service_may(self, rule: AccessRule) -> None:
        assert not admits(rule, service("card"))

    def test_two_rules_admit_whom_either_does(self) -> None:
        rule = allow_roles(Role.CUSTOMER) | allow_services("card")
        assert admits(rule, user(Role.CUSTOMER))
        assert admits(rule, service("card"))
        assert not admits(rule, user(Role.OPERATOR))
        assert not admits(rule, service("analytics"))

    def test_anyone_is_anyone(self) -> None:
        assert admits(PUBLIC_ACCESS, user())
        assert admits(PUBLIC_ACCESS | allow_services("card"), service("analytics"))
