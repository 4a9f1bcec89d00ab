"""Registration, and the access to users."""

import asyncio
import uuid

import pytest

from kit.auth.principal import Role
from tests.integration.bank.harness import Caller
from tests.integration.identity.harness import (
    PASSWORD,
    RunningIdentity,
    anonymous_caller,
    caller_from_tokens,
    decode_claims,
)
from wallet.errors import InvalidInput, PermissionDenied, Unauthenticated, UsernameTaken, UserNotFound
from wallet.inputs import Secret


class TestRegistration:
    async def test_registered_user_is_a_customer_and_can_log_in(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        assert user.role == "CUSTOMER"
        token = decode_claims((await identity.log_in(user)).access)
        assert (token["sub"], token["roles"]) == (user.id, ["customer"])

    async def test_taken_name_is_refused(self, identity: RunningIdentity) -> None:
        name = f"u{uuid.uuid4().hex}"
        results = await asyncio.gather(*(identity.register_user(name) for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(each, UsernameTaken) for each in results) == 4
        assert await identity.sql.fetchval("SELECT count(*) FROM users WHERE username = $1", name) == 1

    async def test_name_in_another_case_is_taken(self, identity: RunningIdentity) -> None:
        name = f"U{uuid.uuid4().hex}"
        variants = (name, name.lower(), name.upper(), name.swapcase())
        results = await asyncio.gather(*(identity.register_user(each) for each in variants), return_exceptions=True)
        assert sum(isinstance(each, UsernameTaken) for each in results) == 3

    async def test_name_is_shown_as_registered_after_a_login_in_another_case(self, identity: RunningIdentity) -> None:
        user = await identity.register_user(f"McKinley{uuid.uuid4().hex}")
        assert user.username.startswith("McKinley")
        with anonymous_caller():
            tokens = await identity.client.authenticate(user.username.swapcase(), PASSWORD)
        assert await caller_from_tokens(tokens)(identity.client.get_user(user.id)) == user

    async def test_common_password_is_refused(self, identity: RunningIdentity) -> None:
        with pytest.raises(InvalidInput) as caught:
            await identity.register_user(password=Secret("Qwerty123456"))
        assert caught.value.message == "password: is one of the most common passwords; choose another one"

    async def test_invalid_name_and_password_are_both_reported(self, identity: RunningIdentity) -> None:
        with pytest.raises(InvalidInput) as caught:
            await identity.register_user("No Name", Secret("short"))
        assert [each.field for each in caught.value.violations] == ["username", "password"]

    async def test_database_contains_the_hash_only(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        row = await identity.sql.fetchrow("SELECT * FROM users WHERE username = $1", user.username)
        assert row is not None
        assert str(row["id"]) == user.id
        assert row["password_hash"].startswith("$argon2id$v=19$m=32,t=1,p=4$")
        assert PASSWORD.text not in str(tuple(row))


class TestUsers:
    async def test_user_reads_itself(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        caller = caller_from_tokens(await identity.log_in(user))
        assert await caller(identity.client.get_user(user.id)) == user
        assert await caller(identity.client.batch_get_users([user.id])) == {user.id: user}

    async def test_user_does_not_read_others(self, identity: RunningIdentity) -> None:
        alice, bob = await identity.register_user(), await identity.register_user()
        caller = caller_from_tokens(await identity.log_in(alice))
        with pytest.raises(UserNotFound):
            await caller(identity.client.get_user(bob.id))
        nobody = str(uuid.uuid4())
        found = await caller(identity.client.batch_get_users([bob.id, alice.id, nobody]))
        assert found == {bob.id: UserNotFound(bob.id), alice.id: alice, nobody: UserNotFound(nobody)}

    @pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
    async def test_operator_and_admin_read_all_users(self, identity: RunningIdentity, role: Role) -> None:
        alice, bob = await identity.register_user(), await identity.register_user()
        caller = Caller(identity.keys.user("somebody", role))
        assert await caller(identity.client.batch_get_users([bob.id, alice.id])) == {bob.id: bob, alice.id: alice}

    async def test_subject_of_another_issuer_is_not_found(self, identity: RunningIdentity) -> None:
        caller = Caller(identity.keys.user("auth0|42"))
        with pytest.raises(UserNotFound):
            await caller(identity.client.get_user("auth0|42"))
        assert await caller(identity.client.batch_get_users(["auth0|42"])) == {"auth0|42": UserNotFound("auth0|42")}

    async def test_anonymous_callers_and_services_read_no_users(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        with anonymous_caller(), pytest.raises(Unauthenticated):
            await identity.client.get_user(user.id)
        with pytest.raises(PermissionDenied):
            await Caller(identity.keys.service("card"))(identity.client.get_user(user.id))

    async def test_more_than_a_thousand_ids_are_refused(self, identity: RunningIdentity) -> None:
        caller = Caller(identity.keys.user("somebody", Role.ADMIN))
        with pytest.raises(InvalidInput):
            await caller(identity.client.batch_get_users([str(uuid.UUID(int=number)) for number in range(1_001)]))

    async def test_login_ignores_an_invalid_token(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        with Caller("junk").calling():
            assert await identity.client.authenticate(user.username, PASSWORD)
