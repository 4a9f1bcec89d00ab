"""Names and passwords: what is told apart, what is slowed down, and what is counted."""

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
    claims,
    running,
    settings_of,
    stranger,
)
from wallet.errors import InvalidCredentials, InvalidInput, ResourceExhausted, TooManyAttempts
from wallet.inputs import Secret

NOBODY = "nobody-of-that-name"


async def guess(identity: RunningIdentity, username: str, password: Secret = WRONG) -> str:
    """What comes of one attempt, by its name."""
    try:
        with stranger():
            await identity.client.authenticate(username, password)
    except (InvalidCredentials, TooManyAttempts, ResourceExhausted) as refusal:
        return refusal.reason
    return "IN"


class TestTokens:
    async def test_access_token_is_valid_and_has_subject_and_expiry(self, identity: RunningIdentity) -> None:
        user = await identity.new()
        tokens = await identity.sign_in(user)
        verifier = TokenVerifier(USERS, {USERS: KeySet.from_text(identity.keys.jwks(USERS))}, AUDIENCE)
        caller = await verifier.verify(tokens.access)
        assert (caller.subject, caller.issuer, caller.is_service) == (user.id, USERS, False)
        now, read = datetime.now(UTC), claims(tokens.access)
        assert read.keys() == {"iss", "sub", "aud", "iat", "exp", "jti", "roles"}
        assert 0 <= read["exp"] - tokens.access_expires_at.timestamp() <= 1
        assert abs(tokens.access_expires_at - now - timedelta(minutes=10)) < timedelta(seconds=5)
        assert abs(tokens.refresh_expires_at - now - timedelta(days=30)) < timedelta(seconds=5)
        assert tokens.access not in repr(tokens)
        assert tokens.refresh not in repr(tokens)

    async def test_each_login_has_its_own_tokens(self, identity: RunningIdentity) -> None:
        user = await identity.new()
        first, second = [await identity.sign_in(user) for _ in range(2)]
        assert first.refresh != second.refresh
        assert claims(first.access)["jti"] != claims(second.access)["jti"]


class TestRefusal:
    async def test_wrong_password_and_unknown_name_get_the_same_error(self, identity: RunningIdentity) -> None:
        user = await identity.new()
        for username in (user.username, f"u{uuid.uuid4().hex}"):
            with stranger(), pytest.raises(InvalidCredentials) as caught:
                await identity.client.authenticate(username, WRONG)
            assert caught.value.metadata() == {}

    async def test_unknown_name_costs_a_hash_too(
        self, identity: RunningIdentity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user, verify, parameters = await identity.new(), PasswordHasher.verify, list[str]()

        def counted(self: PasswordHasher, hash_: str, password: str) -> bool:
            parameters.append(hash_.split("$")[3])
            return verify(self, hash_, password)

        monkeypatch.setattr(PasswordHasher, "verify", counted)
        assert await guess(identity, user.username) == "INVALID_CREDENTIALS"
        assert await guess(identity, f"u{uuid.uuid4().hex}") == "INVALID_CREDENTIALS"
        assert parameters == ["m=32,t=1,p=4"] * 2

    async def test_impossible_credentials_are_invalid_input_and_do_not_count(self, own: RunningIdentity) -> None:
        for username, password in (("No Name", PASSWORD), ("x" * 100_000, PASSWORD), ("alice", Secret(""))):
            with stranger(), pytest.raises(InvalidInput):
                await own.client.authenticate(username, password)
        assert await own.sql.fetchval("SELECT count(*) FROM attempts") == 0


class TestLockout:
    @pytest.mark.parametrize("known", [True, False])
    async def test_five_wrong_passwords_lock_known_and_unknown_names(
        self, own: RunningIdentity, *, known: bool
    ) -> None:
        name = (await own.new()).username if known else NOBODY
        told = [await guess(own, name) for _ in range(6)]
        assert told == ["INVALID_CREDENTIALS"] * 5 + ["TOO_MANY_ATTEMPTS"]
        # The right one is not looked at either, or a lock would be no lock.
        assert await guess(own, name, PASSWORD) == "TOO_MANY_ATTEMPTS"

    async def test_lock_doubles_and_has_a_retry_time(self, own: RunningIdentity) -> None:
        for _ in range(5):
            await guess(own, NOBODY)
        for seconds in (1, 2, 4):
            with stranger(), pytest.raises(TooManyAttempts) as caught:
                await own.client.authenticate(NOBODY, WRONG)
            assert caught.value.retry_after_seconds == str(seconds)
            await own.later(seconds)
            assert await guess(own, NOBODY) == "INVALID_CREDENTIALS"

    async def test_login_resets_the_attempts(self, own: RunningIdentity) -> None:
        user = await own.new()
        for _ in range(2):
            for _ in range(4):
                assert await guess(own, user.username) == "INVALID_CREDENTIALS"
            assert await guess(own, user.username, PASSWORD) == "IN"
        assert await own.sql.fetchval("SELECT count(*) FROM attempts") == 0

    async def test_lock_affects_one_name_only(self, own: RunningIdentity) -> None:
        user = await own.new()
        for _ in range(6):
            await guess(own, NOBODY)
        assert await guess(own, user.username, PASSWORD) == "IN"

    async def test_attempts_are_pruned_after_a_day(self, own: RunningIdentity) -> None:
        for _ in range(3):
            await guess(own, NOBODY)
        await own.later(86_500)
        async with open_database(own.settings["identity_database_url"], max_connections=1) as database:
            assert not await Repository(database).prune(10)
        assert await own.sql.fetchval("SELECT count(*) FROM attempts") == 0

    async def test_concurrent_guesses_on_replicas_share_the_limit(
        self, keys: Keys, tmp_path: Path, own: RunningIdentity
    ) -> None:
        user = await own.new()
        async with AsyncExitStack() as stack:
            url = own.settings["identity_database_url"]
            replicas = [own, await stack.enter_async_context(running(keys, settings_of(keys, tmp_path, url)))]
            told = Counter(await asyncio.gather(*(guess(replicas[n % 2], user.username) for n in range(40))))
            assert told == {"INVALID_CREDENTIALS": 5, "TOO_MANY_ATTEMPTS": 35}
            await own.later(1)
            told = Counter(await asyncio.gather(*(guess(replicas[n % 2], user.username) for n in range(40))))
            assert told == {"INVALID_CREDENTIALS": 1, "TOO_MANY_ATTEMPTS": 39}


class TestHashes:
    async def test_weak_hash_is_replaced_at_login(self, keys: Keys, tmp_path: Path, own: RunningIdentity) -> None:
        user, other = await own.new(), await own.new()
        harder = settings_of(
            keys, tmp_path, own.settings["identity_database_url"], identity_hash_memory_kib=64, identity_hash_passes=2
        )
        async with running(keys, harder) as later:
            assert await guess(later, user.username) == "INVALID_CREDENTIALS"
            assert await guess(later, user.username, PASSWORD) == "IN"
            hashes = {row["username"]: row["password_hash"] for row in await own.sql.fetch("TABLE users")}
            assert "m=64,t=2" in hashes[user.username]
            assert "m=32,t=1" in hashes[other.username]
            assert await guess(later, user.username, PASSWORD) == "IN"
        assert await guess(own, user.username, PASSWORD) == "IN"  # and none grows weaker
        assert hashes == {row["username"]: row["password_hash"] for row in await own.sql.fetch("TABLE users")}

    async def test_excess_hashes_are_refused_and_do_not_count(
        self, keys: Keys, tmp_path: Path, identity_url: str
    ) -> None:
        slow = settings_of(
            keys,
            tmp_path,
            identity_url,
            identity_hash_memory_kib=16_384,
            identity_hash_passes=3,
            identity_hash_waiting=2,
        )
        async with running(keys, slow) as identity:
            told = Counter(await asyncio.gather(*(guess(identity, f"nobody-{n}") for n in range(20))))
            assert told["RESOURCE_EXHAUSTED"] + told["INVALID_CREDENTIALS"] == 20
            assert told["INVALID_CREDENTIALS"] >= 3
            assert told["RESOURCE_EXHAUSTED"] >= 10
            counted = await identity.sql.fetchval("SELECT count(*) FROM attempts")
            assert counted == told["INVALID_CREDENTIALS"]
