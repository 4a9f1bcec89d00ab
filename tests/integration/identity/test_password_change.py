"""Password changes: sessions that end, refusals, the lock-out, retries, and races with logins."""

import asyncio
import json
import uuid
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from kit.auth.principal import Role
from subgraphs.identity.client import Tokens
from subgraphs.identity.service.adapters.passwords import Passwords
from subgraphs.identity.service.adapters.repository import Repository, open_database
from subgraphs.identity.service.domain.lockout import LockoutPolicy
from tests.integration.bank.harness import Caller
from tests.integration.identity.harness import PASSWORD, WRONG, RunningIdentity, anonymous_caller, caller_from_tokens
from wallet.errors import (
    InvalidCredentials,
    InvalidInput,
    PermissionDenied,
    TooManyAttempts,
    Unauthenticated,
    UserNotFound,
    WalletError,
    WrongPassword,
)
from wallet.inputs import Secret

NEW = Secret("a new password, long enough")


async def change(identity: RunningIdentity, tokens: Tokens, current: Secret = PASSWORD, new: Secret = NEW) -> None:
    await caller_from_tokens(tokens)(identity.client.change_password(current, new))


async def refresh_results(identity: RunningIdentity, *logins: Tokens) -> list[str]:
    """Refresh each login; return `ok` or the error's reason for each."""
    results = []
    for tokens in logins:
        try:
            await identity.refresh(tokens.refresh)
        except Unauthenticated as error:
            results.append(error.reason)
        else:
            results.append("ok")
    return results


async def try_call(call: Coroutine[Any, Any, object]) -> str:
    """Return `ok`, or the reason of the error."""
    try:
        await call
    except WalletError as error:
        return error.reason
    return "ok"


class TestChange:
    async def test_only_the_new_password_logs_in(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        await change(identity, await identity.log_in(user))
        with pytest.raises(InvalidCredentials):
            await identity.log_in(user)
        assert await identity.log_in(user, NEW)

    async def test_other_sessions_end_and_the_callers_session_stays(self, identity: RunningIdentity) -> None:
        user, other_user = await identity.register_user(), await identity.register_user()
        other, own, stranger = (
            await identity.log_in(user),
            await identity.log_in(user),
            await identity.log_in(other_user),
        )
        own = await identity.refresh(own.refresh)
        await change(identity, own)
        assert await refresh_results(identity, other, own, stranger) == ["UNAUTHENTICATED", "ok", "ok"]

    async def test_token_without_a_session_ends_all_sessions(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        tokens = await identity.log_in(user)
        caller = Caller(identity.keys.user(user.id))
        await caller(identity.client.change_password(PASSWORD, NEW))
        assert await refresh_results(identity, tokens) == ["UNAUTHENTICATED"]

    async def test_operator_and_admin_change_their_own_password(self, identity: RunningIdentity) -> None:
        for role in (Role.OPERATOR, Role.ADMIN):
            user = await identity.register_user()
            await Caller(identity.keys.user(user.id, role))(identity.client.change_password(PASSWORD, NEW))
            assert await identity.log_in(user, NEW)

    async def test_change_is_logged_without_passwords(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        tokens, _ = await identity.log_in(user), await identity.log_in(user)
        with capture_logs() as lines:
            with pytest.raises(WrongPassword):
                await change(identity, tokens, WRONG)
            await change(identity, tokens)
        events = [(line["event"], line.get("ended_sessions")) for line in lines if line.get("user_id") == user.id]
        assert events == [("password change refused", None), ("password changed", 1)]
        text = json.dumps(lines, default=str)
        assert not [each for each in (PASSWORD.text, NEW.text, WRONG.text) if each in text]


class TestRefusals:
    @pytest.mark.parametrize(
        ("current", "new", "message"),
        [
            (PASSWORD, PASSWORD, "newPassword: must differ from the current password"),
            (PASSWORD, Secret("Qwerty123456"), "newPassword: is one of the most common passwords; choose another one"),
            (PASSWORD, Secret("short"), "newPassword: must be 12 to 128 characters"),
            (PASSWORD, Secret("x" * 129), "newPassword: must be 12 to 128 characters"),
            (Secret("short"), NEW, "currentPassword: must be 12 to 128 characters"),
        ],
    )
    async def test_invalid_passwords_are_refused_and_do_not_count(
        self, own_identity: RunningIdentity, current: Secret, new: Secret, message: str
    ) -> None:
        tokens = await own_identity.log_in(await own_identity.register_user())
        with pytest.raises(InvalidInput) as caught:
            await change(own_identity, tokens, current, new)
        assert caught.value.message == message
        assert await own_identity.sql.fetchval("SELECT count(*) FROM attempts") == 0

    async def test_name_is_refused_as_new_password(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        with pytest.raises(InvalidInput, match="must not be the name"):
            await change(identity, await identity.log_in(user), new=Secret(user.username.upper()))

    async def test_wrong_current_password_changes_nothing(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        tokens, other = await identity.log_in(user), await identity.log_in(user)
        with pytest.raises(WrongPassword):
            await change(identity, tokens, WRONG)
        assert await refresh_results(identity, tokens, other) == ["ok", "ok"]
        assert await identity.log_in(user)

    async def test_wrong_current_passwords_lock_the_name_for_changes_and_logins(
        self, own_identity: RunningIdentity
    ) -> None:
        user = await own_identity.register_user("McKinley")
        tokens = await own_identity.log_in(user)
        for _ in range(5):
            with pytest.raises(WrongPassword):
                await change(own_identity, tokens, WRONG)
        with pytest.raises(TooManyAttempts):
            await change(own_identity, tokens)
        with pytest.raises(TooManyAttempts):
            await own_identity.log_in(user)

    async def test_change_resets_the_attempts(self, own_identity: RunningIdentity) -> None:
        tokens = await own_identity.log_in(await own_identity.register_user("McKinley"))
        for _ in range(4):
            with pytest.raises(WrongPassword):
                await change(own_identity, tokens, WRONG)
        await change(own_identity, tokens)
        assert await own_identity.sql.fetchval("SELECT count(*) FROM attempts") == 0

    async def test_anonymous_callers_services_and_users_of_another_issuer_are_refused(
        self, identity: RunningIdentity
    ) -> None:
        with anonymous_caller(), pytest.raises(Unauthenticated):
            await identity.client.change_password(PASSWORD, NEW)
        with pytest.raises(PermissionDenied):
            await Caller(identity.keys.service("card"))(identity.client.change_password(PASSWORD, NEW))
        for subject in ("auth0|42", str(uuid.uuid4())):
            with pytest.raises(UserNotFound):
                await Caller(identity.keys.user(subject))(identity.client.change_password(PASSWORD, NEW))


class TestRetry:
    async def test_repeated_change_succeeds_and_ends_no_newer_session(self, own_identity: RunningIdentity) -> None:
        user = await own_identity.register_user()
        tokens = await own_identity.log_in(user)
        await change(own_identity, tokens)
        newer = await own_identity.log_in(user, NEW)
        for _ in range(6):
            await change(own_identity, tokens)
        assert await refresh_results(own_identity, tokens, newer) == ["ok", "ok"]
        assert await own_identity.sql.fetchval("SELECT count(*) FROM attempts") == 0

    async def test_repeat_after_ten_minutes_is_a_wrong_password(self, own_identity: RunningIdentity) -> None:
        user = await own_identity.register_user()
        tokens = await own_identity.log_in(user)
        await change(own_identity, tokens)
        await own_identity.sql.execute(
            "UPDATE users SET created_at = created_at - $1::interval, password_changed_at = password_changed_at - $1",
            timedelta(minutes=10),
        )
        with pytest.raises(WrongPassword):
            await change(own_identity, tokens)

    async def test_concurrent_equal_changes_all_succeed(self, own_identity: RunningIdentity) -> None:
        tokens = await own_identity.log_in(await own_identity.register_user())
        results = await asyncio.gather(*(try_call(change(own_identity, tokens)) for _ in range(4)))
        assert results == ["ok"] * 4

    async def test_one_of_concurrent_different_changes_succeeds(self, own_identity: RunningIdentity) -> None:
        user = await own_identity.register_user()
        tokens = await own_identity.log_in(user)
        choices = [Secret(f"{NEW.text} {number}") for number in range(4)]
        results = await asyncio.gather(*(try_call(change(own_identity, tokens, new=each)) for each in choices))
        assert sorted(results) == ["WRONG_PASSWORD"] * 3 + ["ok"]
        assert await own_identity.log_in(user, choices[results.index("ok")])


class TestRaces:
    async def test_login_with_the_old_password_that_ends_after_the_change_is_refused(
        self, own_identity: RunningIdentity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user = await own_identity.register_user()
        tokens, verify = await own_identity.log_in(user), Passwords.verify

        async def verify_then_change(self: Passwords, hash_: str | None, password: Secret) -> bool:
            is_correct = await verify(self, hash_, password)
            monkeypatch.setattr(Passwords, "verify", verify)
            await change(own_identity, tokens)
            return is_correct

        monkeypatch.setattr(Passwords, "verify", verify_then_change)
        with pytest.raises(InvalidCredentials):
            await own_identity.log_in(user)
        active = "SELECT count(*) FROM sign_ins WHERE revoked_at IS NULL"
        assert await own_identity.sql.fetchval(active) == 1

    async def test_change_ends_a_session_that_is_being_refreshed(self, own_identity: RunningIdentity) -> None:
        user = await own_identity.register_user()
        others = [await own_identity.log_in(user) for _ in range(5)]
        tokens = await own_identity.log_in(user)
        refreshes = [asyncio.create_task(own_identity.refresh(each.refresh)) for each in others]
        await change(own_identity, tokens)
        results = await asyncio.gather(*refreshes, return_exceptions=True)
        refreshed = [each for each in results if isinstance(each, Tokens)]
        assert await refresh_results(own_identity, *refreshed, tokens) == ["UNAUTHENTICATED"] * len(refreshed) + ["ok"]

    async def test_new_hash_of_the_old_password_does_not_replace_the_new_password(
        self, own_identity: RunningIdentity
    ) -> None:
        user = await own_identity.register_user()
        async with open_database(own_identity.settings["identity_database_url"], max_connections=1) as database:
            repository = Repository(database)
            before = await repository.add_attempt(user.username, LockoutPolicy())
            assert before is not None
            await change(own_identity, await own_identity.log_in(user))
            await repository.replace_hash(before.user.id, before.password_hash, before.password_hash)
            assert await repository.change_password(before, before.password_hash, kept_session=None) is None
        assert await own_identity.log_in(user, NEW)
