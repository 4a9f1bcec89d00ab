"""Refresh tokens: rotation, replay, reuse, logout and expiry."""

import asyncio
import uuid
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from subgraphs.identity.client import Tokens
from subgraphs.identity.service.adapters.repository import Repository, open_database
from subgraphs.identity.service.domain.refresh_tokens import decode_token, encode_token
from tests.conftest import Keys
from tests.integration.identity.harness import RunningIdentity, build_settings, decode_claims, running
from wallet.errors import Unauthenticated

REFUSED = Unauthenticated("the refresh token is not valid; sign in again")


async def assert_refused(identity: RunningIdentity, *tokens: str) -> None:
    """Assert that each token is refused with the same error."""
    for token in tokens:
        with pytest.raises(Unauthenticated) as caught:
            await identity.refresh(token)
        assert caught.value == REFUSED


async def log_in_new_user(identity: RunningIdentity) -> Tokens:
    return await identity.log_in(await identity.register_user())


class TestRefresh:
    async def test_refresh_returns_new_tokens_of_the_same_session(self, identity: RunningIdentity) -> None:
        tokens = await log_in_new_user(identity)
        fresh = await identity.refresh(tokens.refresh)
        assert fresh.refresh != tokens.refresh
        assert fresh.refresh_expires_at == tokens.refresh_expires_at
        assert decode_claims(fresh.access)["sub"] == decode_claims(tokens.access)["sub"]
        assert decode_claims(fresh.access)["jti"] != decode_claims(tokens.access)["jti"]
        assert (await identity.refresh(fresh.refresh)).refresh not in {fresh.refresh, tokens.refresh}

    async def test_replay_returns_the_same_refresh_token(self, identity: RunningIdentity) -> None:
        tokens = await log_in_new_user(identity)
        first, again = [await identity.refresh(tokens.refresh) for _ in range(2)]
        assert first.refresh == again.refresh

    async def test_concurrent_refreshes_on_replicas_have_one_successor(
        self, keys: Keys, tmp_path: Path, own_identity: RunningIdentity
    ) -> None:
        tokens = await log_in_new_user(own_identity)
        async with AsyncExitStack() as stack:
            settings = build_settings(keys, tmp_path, own_identity.settings["identity_database_url"])
            replicas = [own_identity, await stack.enter_async_context(running(keys, settings))]
            fresh = await asyncio.gather(*(replicas[n % 2].refresh(tokens.refresh) for n in range(40)))
        assert len({each.refresh for each in fresh}) == 1
        assert await own_identity.sql.fetchval("SELECT count(*) FROM refresh_tokens") == 2

    async def test_refreshed_token_has_the_current_role(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        tokens = await identity.log_in(user)
        await identity.sql.execute("UPDATE users SET role = 'OPERATOR' WHERE username = $1", user.username)
        assert decode_claims((await identity.refresh(tokens.refresh)).access)["roles"] == ["operator"]


class TestReuse:
    async def test_reuse_after_the_grace_period_ends_the_session(self, own_identity: RunningIdentity) -> None:
        tokens = await log_in_new_user(own_identity)
        others = await log_in_new_user(own_identity)
        fresh = await own_identity.refresh(tokens.refresh)
        newest = await own_identity.refresh(fresh.refresh)
        await own_identity.advance_time(10)
        async with httpx.AsyncClient(trust_env=False) as http:
            counted = 'wallet_identity_refreshes_total{outcome="reused"}'

            async def count_reuses() -> float:
                lines = (await http.get(f"{own_identity.admin}/metrics")).text.splitlines()
                return next((float(line.split()[-1]) for line in lines if line.startswith(counted)), 0.0)

            before = await count_reuses()
            await assert_refused(own_identity, tokens.refresh)
            assert await count_reuses() == before + 1
        await assert_refused(own_identity, newest.refresh, fresh.refresh, tokens.refresh)
        assert await own_identity.refresh(others.refresh)

    async def test_reuse_of_an_old_token_ends_the_session(self, own_identity: RunningIdentity) -> None:
        tokens = first = await log_in_new_user(own_identity)
        for _ in range(4):
            tokens = await own_identity.refresh(tokens.refresh)
            await own_identity.advance_time(3_600)
        await assert_refused(own_identity, first.refresh, tokens.refresh)


class TestSessionEnd:
    async def test_logout_ends_the_session_and_is_idempotent(self, identity: RunningIdentity) -> None:
        tokens = await log_in_new_user(identity)
        fresh = await identity.refresh(tokens.refresh)
        for token in (tokens, fresh, fresh):  # any token of the session
            await identity.revoke(token.refresh)
        await assert_refused(identity, tokens.refresh, fresh.refresh)

    async def test_session_expires_however_often_it_is_refreshed(self, own_identity: RunningIdentity) -> None:
        tokens = await log_in_new_user(own_identity)
        await own_identity.advance_time(29 * 86_400)
        tokens = await own_identity.refresh(tokens.refresh)
        await own_identity.advance_time(86_400)
        await assert_refused(own_identity, tokens.refresh)

    async def test_logout_with_an_invalid_token_is_no_error(self, identity: RunningIdentity) -> None:
        for token in ("", "junk", encode_token(b"another secret", uuid.uuid4())):
            await identity.revoke(token)

    async def test_all_invalid_refresh_tokens_get_the_same_error(self, identity: RunningIdentity) -> None:
        tokens = await log_in_new_user(identity)
        secret = identity.settings["identity_refresh_secret"].encode()
        id_ = decode_token(secret, tokens.refresh)
        assert id_ is not None
        forged = encode_token(b"another secret", id_)
        unknown = encode_token(secret, uuid.uuid4())
        await assert_refused(identity, forged, unknown, str(id_), "", "junk", tokens.refresh + "=", tokens.access)
        assert await identity.refresh(tokens.refresh)

    async def test_expired_sessions_are_pruned_with_their_tokens(self, own_identity: RunningIdentity) -> None:
        for _ in range(3):
            await own_identity.refresh((await log_in_new_user(own_identity)).refresh)
        await own_identity.advance_time(31 * 86_400)
        kept = await log_in_new_user(own_identity)
        async with open_database(own_identity.settings["identity_database_url"], max_connections=1) as database:
            repository = Repository(database)
            assert await repository.prune(2)
            assert not await repository.prune(2)
        assert await own_identity.sql.fetchval("SELECT count(*) FROM sign_ins") == 1
        assert await own_identity.sql.fetchval("SELECT count(*) FROM refresh_tokens") == 1
        assert await own_identity.refresh(kept.refresh)


@pytest.mark.parametrize("days", [1, 365])
class TestCorrectedClock:
    """The database's clock was ahead while it stored the session, and is corrected now."""

    async def test_refresh_bounds_the_remaining_lifetime(self, own_identity: RunningIdentity, days: int) -> None:
        tokens = await log_in_new_user(own_identity)
        await own_identity.advance_time(-days * 86_400)
        fresh = await own_identity.refresh(tokens.refresh)
        assert abs(fresh.refresh_expires_at - tokens.refresh_expires_at) < timedelta(hours=1)
        again = await own_identity.refresh(fresh.refresh)
        assert again.refresh_expires_at == fresh.refresh_expires_at
        await own_identity.advance_time(30 * 86_400)
        await assert_refused(own_identity, again.refresh)

    async def test_unused_session_ends_within_its_lifetime(self, own_identity: RunningIdentity, days: int) -> None:
        tokens, others = await log_in_new_user(own_identity), await log_in_new_user(own_identity)
        lifetime = timedelta(days=30)
        async with open_database(own_identity.settings["identity_database_url"], max_connections=1) as database:
            repository = Repository(database)
            assert not await repository.bound_expiry(lifetime, limit=1)
            await own_identity.advance_time(-days * 86_400)
            assert [await repository.bound_expiry(lifetime, limit=1) for _ in range(3)] == [True, True, False]
        await own_identity.advance_time(30 * 86_400)
        await assert_refused(own_identity, tokens.refresh, others.refresh)

    async def test_reuse_of_a_token_ends_the_session(self, own_identity: RunningIdentity, days: int) -> None:
        tokens = await log_in_new_user(own_identity)
        fresh = await own_identity.refresh(tokens.refresh)
        await own_identity.advance_time(-days * 86_400)
        await assert_refused(own_identity, tokens.refresh, fresh.refresh)


class TestDatabase:
    async def test_database_contains_no_usable_token(self, own_identity: RunningIdentity) -> None:
        tokens = await own_identity.refresh((await log_in_new_user(own_identity)).refresh)
        dump = [
            str(value)
            for table in ("users", "attempts", "sign_ins", "refresh_tokens")
            for row in await own_identity.sql.fetch(f"TABLE {table}")
            for value in row.values()
        ]
        assert len(dump) >= 15
        assert not [value for value in dump if value in tokens.refresh or value in tokens.access]
        await assert_refused(own_identity, *dump)
