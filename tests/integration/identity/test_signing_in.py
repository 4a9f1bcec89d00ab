"""Login: tokens, errors, lock-out and password hashes."""

import asyncio
import uuid
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from kit.auth.keys import KeySet
from kit.auth.principal import TokenVerifier
from subgraphs.identity.service.adapters.repository import Repository, open_database
from tests.conftest import AUDIENCE, USERS, Keys
from tests.integration.identity.harness import (
    PASSWORD,
    WRONG,
    RunningIdentity,
    anonymous_caller,
    build_settings,
    decode_claims,
    running,
)
from wallet.errors import InvalidCredentials, InvalidInput, ResourceExhausted, TooManyAttempts
from wallet.inputs import Secret

NOBODY = "nobody-of-that-name"


async def try_login(identity: RunningIdentity, username: str, password: Secret = WRONG) -> str:
    """Try to log in. Return `IN`, or the reason of the error."""
    try:
        with anonymous_caller():
            await identity.client.authenticate(username, password)
    except (InvalidCredentials, TooManyAttempts, ResourceExhausted) as refusal:
        return refusal.reason
    return "IN"


class TestTokens:
    async def test_access_token_is_valid_and_has_subject_and_expiry(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        tokens = await identity.log_in(user)
        verifier = TokenVerifier(USERS, {USERS: KeySet.from_text(identity.keys.jwks(USERS))}, AUDIENCE)
        caller = await verifier.verify(tokens.access)
        assert (caller.subject, caller.issuer, caller.is_service) == (user.id, USERS, False)
        now, read = datetime.now(UTC), decode_claims(tokens.access)
        assert read.keys() == {"iss", "sub", "aud", "iat", "exp", "jti", "roles", "sid"}
        assert 0 <= read["exp"] - tokens.access_expires_at.timestamp() <= 1
        assert abs(tokens.access_expires_at - now - timedelta(minutes=10)) < timedelta(seconds=5)
        assert abs(tokens.refresh_expires_at - now - timedelta(days=30)) < timedelta(seconds=5)
        assert tokens.access not in repr(tokens)
        assert tokens.refresh not in repr(tokens)

    async def test_each_login_has_its_own_tokens(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        first, second = [await identity.log_in(user) for _ in range(2)]
        assert first.refresh != second.refresh
        assert decode_claims(first.access)["jti"] != decode_claims(second.access)["jti"]


class TestRefusal:
    async def test_wrong_password_and_unknown_name_get_the_same_error(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        for username in (user.username, f"u{uuid.uuid4().hex}"):
            with anonymous_caller(), pytest.raises(InvalidCredentials) as caught:
                await identity.client.authenticate(username, WRONG)
            assert caught.value.metadata() == {}

    async def test_login_with_an_unknown_name_computes_a_hash(
        self, identity: RunningIdentity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user, verify, parameters = await identity.register_user(), PasswordHasher.verify, list[str]()

        def counted(self: PasswordHasher, hash_: str, password: str) -> bool:
            parameters.append(hash_.split("$")[3])
            return verify(self, hash_, password)

        monkeypatch.setattr(PasswordHasher, "verify", counted)
        assert await try_login(identity, user.username) == "INVALID_CREDENTIALS"
        assert await try_login(identity, f"u{uuid.uuid4().hex}") == "INVALID_CREDENTIALS"
        assert parameters == ["m=32,t=1,p=4"] * 2

    async def test_impossible_credentials_are_invalid_input_and_do_not_count(
        self, own_identity: RunningIdentity
    ) -> None:
        for username, password in (("No Name", PASSWORD), ("x" * 100_000, PASSWORD), ("alice", Secret(""))):
            with anonymous_caller(), pytest.raises(InvalidInput):
                await own_identity.client.authenticate(username, password)
        assert await own_identity.sql.fetchval("SELECT count(*) FROM attempts") == 0


class TestLockout:
    @pytest.mark.parametrize("known", [True, False])
    async def test_five_wrong_passwords_lock_known_and_unknown_names(
        self, own_identity: RunningIdentity, *, known: bool
    ) -> None:
        name = (await own_identity.register_user()).username if known else NOBODY
        results = [await try_login(own_identity, name) for _ in range(6)]
        assert results == ["INVALID_CREDENTIALS"] * 5 + ["TOO_MANY_ATTEMPTS"]
        # The correct password is refused too. Otherwise the lock would reveal the correct password.
        assert await try_login(own_identity, name, PASSWORD) == "TOO_MANY_ATTEMPTS"

    async def test_attempts_in_every_case_of_a_name_count_together(self, own_identity: RunningIdentity) -> None:
        results = [await try_login(own_identity, name) for name in ("bob", "Bob", "BOB", "bOb", "boB", "BoB")]
        assert results == ["INVALID_CREDENTIALS"] * 5 + ["TOO_MANY_ATTEMPTS"]

    async def test_lock_doubles_and_has_a_retry_time(self, own_identity: RunningIdentity) -> None:
        for _ in range(5):
            await try_login(own_identity, NOBODY)
        for seconds in (1, 2, 4):
            with anonymous_caller(), pytest.raises(TooManyAttempts) as caught:
                await own_identity.client.authenticate(NOBODY, WRONG)
            assert caught.value.retry_after_seconds == str(seconds)
            await own_identity.advance_time(seconds)
            assert await try_login(own_identity, NOBODY) == "INVALID_CREDENTIALS"

    async def test_login_resets_the_attempts(self, own_identity: RunningIdentity) -> None:
        user = await own_identity.register_user()
        for _ in range(2):
            for _ in range(4):
                assert await try_login(own_identity, user.username) == "INVALID_CREDENTIALS"
            assert await try_login(own_identity, user.username, PASSWORD) == "IN"
        assert await own_identity.sql.fetchval("SELECT count(*) FROM attempts") == 0

    async def test_lock_affects_one_name_only(self, own_identity: RunningIdentity) -> None:
        user = await own_identity.register_user()
        for _ in range(6):
            await try_login(own_identity, NOBODY)
        assert await try_login(own_identity, user.username, PASSWORD) == "IN"

    async def test_attempts_are_pruned_after_a_day(self, own_identity: RunningIdentity) -> None:
        for _ in range(3):
            await try_login(own_identity, NOBODY)
        await own_identity.advance_time(86_500)
        async with open_database(own_identity.settings["identity_database_url"], max_connections=1) as database:
            assert not await Repository(database).prune(10)
        assert await own_identity.sql.fetchval("SELECT count(*) FROM attempts") == 0

    async def test_concurrent_guesses_on_replicas_share_the_limit(
        self, keys: Keys, tmp_path: Path, own_identity: RunningIdentity
    ) -> None:
        user = await own_identity.register_user()
        async with AsyncExitStack() as stack:
            url = own_identity.settings["identity_database_url"]
            replicas = [
                own_identity,
                await stack.enter_async_context(running(keys, build_settings(keys, tmp_path, url))),
            ]
            results = Counter(await asyncio.gather(*(try_login(replicas[n % 2], user.username) for n in range(40))))
            assert results == {"INVALID_CREDENTIALS": 5, "TOO_MANY_ATTEMPTS": 35}
            await own_identity.advance_time(1)
            results = Counter(await asyncio.gather(*(try_login(replicas[n % 2], user.username) for n in range(40))))
            assert results == {"INVALID_CREDENTIALS": 1, "TOO_MANY_ATTEMPTS": 39}


class TestHashes:
    async def test_weak_hash_is_replaced_at_login(
        self, keys: Keys, tmp_path: Path, own_identity: RunningIdentity
    ) -> None:
        user, other = await own_identity.register_user(), await own_identity.register_user()
        harder = build_settings(
            keys,
            tmp_path,
            own_identity.settings["identity_database_url"],
            identity_hash_memory_kib=64,
            identity_hash_passes=2,
        )
        async with running(keys, harder) as later:
            assert await try_login(later, user.username) == "INVALID_CREDENTIALS"
            assert await try_login(later, user.username, PASSWORD) == "IN"
            hashes = {row["username"]: row["password_hash"] for row in await own_identity.sql.fetch("TABLE users")}
            assert "m=64,t=2" in hashes[user.username]
            assert "m=32,t=1" in hashes[other.username]
            assert await try_login(later, user.username, PASSWORD) == "IN"
        # This replica has weaker settings, so the login leaves the stronger hash unchanged.
        assert await try_login(own_identity, user.username, PASSWORD) == "IN"
        assert hashes == {row["username"]: row["password_hash"] for row in await own_identity.sql.fetch("TABLE users")}

    async def test_excess_hashes_are_refused_and_do_not_count(
        self, keys: Keys, tmp_path: Path, identity_url: str
    ) -> None:
        slow = build_settings(
            keys,
            tmp_path,
            identity_url,
            identity_hash_memory_kib=16_384,
            identity_hash_passes=3,
        )
        async with running(keys, slow, hash_waiting=2) as identity:
            results = Counter(await asyncio.gather(*(try_login(identity, f"nobody-{n}") for n in range(20))))
            assert results["RESOURCE_EXHAUSTED"] + results["INVALID_CREDENTIALS"] == 20
            assert results["INVALID_CREDENTIALS"] >= 3
            assert results["RESOURCE_EXHAUSTED"] >= 10
            counted = await identity.sql.fetchval("SELECT count(*) FROM attempts")
            assert counted == results["INVALID_CREDENTIALS"]
