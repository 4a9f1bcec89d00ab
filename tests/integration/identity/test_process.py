"""The process of the identity service: kills, outages, key rotation, commands and secrets."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
from structlog.testing import capture_logs

from kit.auth.principal import TokenVerifier
from kit.runtime.settings import AuthSettings
from stack.engines.postgres import Postgres
from stack.ports import free_ports
from stack.process import ROOT, Child
from subgraphs.identity.client import Tokens
from tests.conftest import AUDIENCE, USERS, Keys
from tests.integration.identity.harness import (
    PASSWORD,
    WRONG,
    RunningIdentity,
    anonymous_caller,
    build_settings,
    connect_to,
    decode_claims,
    process,
    running,
)
from tests.migration_jobs import URL_PARAMETERS, count_named_sessions, migrate
from tests.waiting import until
from wallet.errors import InternalError, InvalidCredentials, TooManyAttempts, Unauthenticated, Unavailable, WalletError
from wallet.inputs import Secret

pytestmark = pytest.mark.slow

ProcessFactory = Callable[..., tuple[Child, dict[str, str]]]


@pytest.fixture
async def build_process(keys: Keys, tmp_path: Path, identity_url: str) -> AsyncIterator[ProcessFactory]:
    """Return a factory of child processes, which are stopped at the end of the test."""
    children = []

    def build(output: Any = None, **changes: Any) -> tuple[Child, dict[str, str]]:
        settings = build_settings(keys, tmp_path, **{"identity_database_url": identity_url, **changes})
        child = process(settings, output)
        children.append(child)
        return child, settings

    yield build
    for child in children:
        await child.stop()


async def run_command(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command of the service; return its exit code and output."""
    command = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await command.communicate()
    return command.returncode or 0, output.decode()


async def refresh_until_known(identity: RunningIdentity, token: str) -> Tokens:
    """Refresh with the same token until the outcome is known, as a retrying client does."""

    async def attempt() -> Tokens | None:
        try:
            return await identity.refresh(token)
        except Unavailable:
            return None

    tokens = await until(attempt)
    assert tokens is not None
    return tokens


async def test_service_and_its_migration_start_with_parameters_in_the_url(
    build_process: ProcessFactory, identity_url: str
) -> None:
    url = f"{identity_url}?{URL_PARAMETERS}"
    assert await migrate("identity", IDENTITY_DATABASE_URL=url) == (0, [])
    child, _ = build_process(identity_database_url=url)
    await child.start()
    assert await count_named_sessions(identity_url)


class TestKill9:
    async def test_kill_between_commit_and_response_loses_no_session(
        self, build_process: ProcessFactory, keys: Keys
    ) -> None:
        child, settings = build_process()
        await child.start()
        async with connect_to(keys, settings) as identity:
            user = await identity.register_user()
            user_tokens = [(await identity.log_in(user)).refresh for _ in range(40)]
            refreshes = [asyncio.create_task(identity.refresh(token)) for token in user_tokens]
            tokens_are_replaced = "SELECT count(*) > 3 FROM refresh_tokens WHERE replaced_by IS NOT NULL"
            await until(lambda: identity.sql.fetchval(tokens_are_replaced), every=0.001)
            child.kill()
            await child.wait()
            results = await asyncio.gather(*refreshes, return_exceptions=True)
            assert all(isinstance(result, Tokens | Unavailable) for result in results)
            assert any(isinstance(result, Unavailable) for result in results)

            await child.start()
            again = [await refresh_until_known(identity, token) for token in user_tokens]
            for result, repeated in zip(results, again, strict=True):
                if isinstance(result, Tokens):
                    assert result.refresh == repeated.refresh
            assert await identity.sql.fetchval("SELECT count(*) FROM refresh_tokens") == 2 * len(user_tokens)
            assert len({each.refresh for each in again}) == len(user_tokens)
            for tokens in again:
                await identity.refresh(tokens.refresh)

    async def test_kill_keeps_the_login_attempts_of_a_name(self, build_process: ProcessFactory, keys: Keys) -> None:
        child, settings = build_process(identity_hash_memory_kib=65_536)
        await child.start()
        async with connect_to(keys, settings) as identity:
            token = (await identity.log_in(await identity.register_user())).refresh
            with anonymous_caller():
                guesses = [asyncio.create_task(identity.client.authenticate("nobody", WRONG)) for _ in range(5)]
            guesses_are_counted = "SELECT count = 5 FROM attempts WHERE username = 'nobody'"
            await until(lambda: identity.sql.fetchval(guesses_are_counted), every=0.005)
            # The lock of the eleventh attempt lasts 64 seconds.
            await identity.sql.execute("UPDATE attempts SET count = 11, locked_until = now() + interval '1 minute'")
            child.kill()
            await child.wait()
            await asyncio.gather(*guesses, return_exceptions=True)
            await child.start()
            await refresh_until_known(identity, token)
            with anonymous_caller(), pytest.raises(TooManyAttempts):
                await identity.client.authenticate("nobody", WRONG)


class TestOutage:
    async def test_lost_database_connections_are_reopened(
        self, own_identity: RunningIdentity, postgres: Postgres
    ) -> None:
        user = await own_identity.register_user()
        token = (await own_identity.log_in(user)).refresh
        admin = await asyncpg.connect(postgres.admin_dsn)
        try:
            for _ in range(3):
                assert await admin.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = $1 AND application_name = 'identity'",
                    own_identity.settings["identity_database_url"].rpartition("/")[2],
                )
                token = (await refresh_until_known(own_identity, token)).refresh
        finally:
            await admin.close()

    async def test_keys_are_published_without_a_database(self, build_process: ProcessFactory, keys: Keys) -> None:
        nowhere = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none"
        child, settings = build_process(identity_database_url=nowhere)
        await child.spawn()
        async with httpx.AsyncClient(trust_env=False) as http, connect_to(keys, settings) as identity:

            async def published() -> bool:
                try:
                    return (await http.get(f"{identity.admin}/.well-known/jwks.json")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(published, within=20)
            assert (await http.get(f"{identity.admin}/health/ready")).status_code == 503
            with anonymous_caller(), pytest.raises(Unavailable):
                await identity.client.authenticate("alice", PASSWORD)


class TestKeys:
    async def test_keys_are_published_without_a_token_and_with_a_max_age(self, identity: RunningIdentity) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            response = await http.get(f"{identity.admin}/.well-known/jwks.json")
        kid = jwt.get_unverified_header((await identity.log_in(await identity.register_user())).access)["kid"]
        assert [key["kid"] for key in response.json()["keys"]] == [kid]
        assert "d" not in response.json()["keys"][0]
        assert response.headers["cache-control"] == "public, max-age=30"

    async def test_keys_are_rotated_without_a_restart(
        self, keys: Keys, tmp_path: Path, identity_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.identity.service.adapters.signing_keys.READ_INTERVAL_SECONDS", 0.05)
        settings = build_settings(keys, tmp_path, identity_url)
        folder = Path(settings["identity_keys"])
        (old,) = list_files(folder)
        long_ago = time.time() - 10_000
        os.utime(old, (long_ago, long_ago))
        published = f"http://{settings['identity_admin_listen']}/.well-known/jwks.json"
        auth = AuthSettings(auth_issuer=USERS, auth_jwks=published, auth_audience=AUDIENCE)
        async with (
            running(keys, settings) as identity,
            httpx.AsyncClient(trust_env=False) as http,
            TokenVerifier.open(auth) as verifier,
        ):
            user = await identity.register_user()
            before = (await identity.log_in(user)).access
            assert (await verifier.verify(before)).subject == user.id

            code, output = await run_command(
                "subgraphs.identity.service.keys", "rotate", "--folder", str(folder), "--keep", "600"
            )
            assert code == 0, output
            new = next(file for file in list_files(folder) if file != old)
            assert f"added {new.name}" in output

            async def are_both_published() -> bool:
                return len((await http.get(published)).json()["keys"]) == 2

            await until(are_both_published)
            signed_by = jwt.get_unverified_header
            assert signed_by((await identity.log_in(user)).access) == signed_by(before)
            os.utime(new, (time.time() - 61,) * 2)

            async def rotated() -> str:
                token = (await identity.log_in(user)).access
                return "" if signed_by(token)["kid"] == signed_by(before)["kid"] else token

            after = await until(rotated)
            for token in (before, after):  # the verifier reads the key set again when a token has an unknown key id
                await until(lambda token=token: is_accepted(verifier, token))  # type: ignore[misc]
            new.unlink()
            old.unlink()

            async def is_reported() -> bool:
                return any(line["event"].startswith("no signing keys in the folder") for line in lines)

            with capture_logs() as lines:
                await until(is_reported)
            assert await identity.log_in(user)  # the previous keys stay in use

    async def test_service_does_not_start_without_a_key(self, build_process: ProcessFactory) -> None:
        output: list[str] = []
        child, settings = build_process(lambda _, line: output.append(line))
        (only,) = list_files(Path(settings["identity_keys"]))
        only.unlink()
        await child.spawn()
        assert await child.wait() != 0
        await child.stop()
        assert any("python -m subgraphs.identity.service.keys rotate" in line for line in output)


def list_files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def is_accepted(verifier: TokenVerifier, token: str) -> bool:
    try:
        await verifier.verify(token)
    except Unauthenticated:
        return False
    return True


class TestRoles:
    async def test_role_is_granted_by_the_command(self, own_identity: RunningIdentity) -> None:
        user = await own_identity.register_user()
        tokens = await own_identity.log_in(user)
        url = own_identity.settings["identity_database_url"]
        for role in ("operator", "admin", "customer"):
            code, output = await run_command(
                "subgraphs.identity.service.roles", "grant", user.username, role, IDENTITY_DATABASE_URL=url
            )
            assert (code, output) == (
                0,
                f"{user.username} ({user.id}) is {role} from the next refresh or login\n",
            )
            tokens = await own_identity.refresh(tokens.refresh)
            assert decode_claims(tokens.access)["roles"] == [role]

    async def test_command_refuses_unknown_users_and_roles(self, own_identity: RunningIdentity) -> None:
        url = own_identity.settings["identity_database_url"]
        roles = "subgraphs.identity.service.roles"
        assert await run_command(roles, "grant", "nobody", "admin", IDENTITY_DATABASE_URL=url) == (
            1,
            "there is no user nobody\n",
        )
        assert (await run_command(roles, "grant", "nobody", "king", IDENTITY_DATABASE_URL=url))[0] == 2

    async def test_role_command_without_a_database_names_the_setting(self) -> None:
        nowhere = f"postgresql://identity:s3cret@127.0.0.1:{free_ports(1)[0]}/identity"
        command = ("subgraphs.identity.service.roles", "grant", "alice", "admin")
        code, output = await run_command(*command, IDENTITY_DATABASE_URL=nowhere)
        assert code == 1
        assert output.startswith("IDENTITY_DATABASE_URL: the database refused the change or does not respond: ")
        assert "s3cret" not in output
        assert "Traceback" not in output


class TestSecrets:
    async def test_secrets_are_in_no_log_and_no_error(self, build_process: ProcessFactory, keys: Keys) -> None:
        output: list[str] = []
        child, settings = build_process(lambda _, line: output.append(line), log_level="DEBUG")
        await child.start()
        secrets, errors = [settings["identity_refresh_secret"], PASSWORD.text, WRONG.text], list[str]()
        async with connect_to(keys, settings) as identity:
            user = await identity.register_user()
            tokens = await identity.log_in(user)
            fresh = await identity.refresh(tokens.refresh)
            await identity.advance_time(60)
            secrets += [tokens.access, tokens.refresh, fresh.access, fresh.refresh]
            with anonymous_caller():
                for attempt in (
                    lambda: identity.client.authenticate(user.username, WRONG),
                    lambda: identity.client.register(user.username, PASSWORD),
                    lambda: identity.client.register("alice", Secret(PASSWORD.text * 10)),
                    lambda: identity.client.refresh(Secret(tokens.refresh)),
                    lambda: identity.client.refresh(Secret(tokens.access)),
                ):
                    with pytest.raises(WalletError) as caught:
                        await attempt()
                    errors += [str(caught.value), repr(caught.value), repr(caught.value.metadata())]
                # Cause an unexpected error.
                await identity.sql.execute("ALTER TABLE users RENAME COLUMN password_hash TO gone")
                for defect in (
                    lambda: identity.client.authenticate(user.username, PASSWORD),
                    lambda: identity.client.register("carol", PASSWORD),
                ):
                    with pytest.raises(InternalError):
                        await defect()
        await child.stop()
        assert any("refresh token reuse detected" in line for line in output)
        assert len([line for line in output if "unexpected error" in line]) == 2
        texts = "\n".join([*output, *errors])
        assert not [secret for secret in secrets if secret in texts]

    async def test_wrong_password_is_invalid_credentials(self, identity: RunningIdentity) -> None:
        user = await identity.register_user()
        with pytest.raises(InvalidCredentials):
            await identity.log_in(user, WRONG)
