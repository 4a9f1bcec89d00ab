"""Faults: each breaks a part of the system and repairs it. After a kill, the supervisor restarts the process."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg
import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kit.auth.jwk import ALGORITHM, public_jwk
from kit.auth.principal import Role
from loadtests.faults.system import BANKS, SystemUnderTest
from provisioning.seed import CUSTOMERS
from stack.plan import AUDIENCE, ISSUER
from stack.ports import HOST

Fault: TypeAlias = Callable[[], Awaitable[None]]
"""Breaks a part of the system. Returns after the repair, or directly after a kill, while the system may still be
recovering."""

_IS_LEADER: Final = "wallet_bank_outbox_is_leader 1.0"
_END_OTHER_SESSIONS: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = current_user AND application_name = 'bank' AND pid <> pg_backend_pid()
"""
_TIMEOUT_SECONDS: Final = 5.0
_MIN_FREE_BYTES_SETTING: Final = "min_free_disk_bytes_to_perform_insert"
_MORE_THAN_ANY_DISK_BYTES: Final = 10**17
_TOKEN_LIFETIME_SECONDS: Final = 600.0
_CLOCK_AHEAD_SECONDS: Final = 60.0  # far more than the clock difference that a verifier tolerates
_CLOCK_BEHIND_SECONDS: Final = 3_600.0  # more than the lifetime of a token, so the token has already expired
_KILLED: Final = (
    "bank",
    "bank-2",
    "gateway",
    "analytics",
    "card",
    "identity",
    "postgres",
    "kafka",
    "clickhouse",
    "acquirer",
)
_FROZEN: Final = ("bank", "bank-2", "gateway", "analytics", "kafka", "clickhouse", "card")


class WrongBehaviourError(AssertionError):
    """The system did something that it must never do. The message describes it."""


class FaultActions:
    """Faults of one system. Random choices use `rng`."""

    def __init__(self, system: SystemUnderTest, rng: random.Random) -> None:
        self._under_test = system
        self._rng = rng
        self._system = system.system

    def by_name(self) -> Mapping[str, Fault]:
        """Return all faults by name."""
        faults: dict[str, Fault] = {}
        for name in _KILLED:
            faults[f"kill {name}"] = lambda name=name: self._kill(name)  # type: ignore[misc]
        for name in _FROZEN:
            faults[f"freeze {name}"] = lambda name=name: self._freeze(name)  # type: ignore[misc]
        for name in self._under_test.proxies:
            faults[f"disconnect {name}"] = lambda name=name: self._disconnect(name)  # type: ignore[misc]
            faults[f"stall {name}"] = lambda name=name: self._stall(name)  # type: ignore[misc]
        for name in ("postgres", "kafka"):
            faults[f"restart {name}"] = lambda name=name: self._restart(name)  # type: ignore[misc]
        return faults | {
            "freeze the outbox leader": self.freeze_leader,
            "fill the clickhouse disk": self.fill_disk,
            "make the ledger read-only": self.make_read_only,
            "send tokens of a skewed clock": self.send_skewed_tokens,
        }

    async def freeze_leader(self) -> None:
        """For 12 s, freeze the bank replica that publishes the outbox.

        The database ends the session of the frozen replica, and another replica becomes the publisher.
        """
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
            for name in BANKS:
                with suppress(httpx.HTTPError):
                    if _IS_LEADER in (await http.get(f"{self._under_test.admins[name]}/metrics")).text:
                        await self._freeze(name, 12.0)
                        return

    async def fill_disk(self) -> None:
        """Make ClickHouse reject inserts for 1 to 3 s with the error of a full disk.

        A setting does this, because a full disk would affect the whole machine.
        """
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:

            async def alter(change: str) -> None:
                with suppress(httpx.HTTPError):
                    url = f"http://{HOST}:{self._system.ports.clickhouse}"
                    await http.post(url, content=f"ALTER TABLE wallet.operations {change}")

            await alter(f"MODIFY SETTING {_MIN_FREE_BYTES_SETTING} = {_MORE_THAN_ANY_DISK_BYTES}")
            try:
                await asyncio.sleep(self._rng.uniform(1, 3))
            finally:
                await alter(f"RESET SETTING {_MIN_FREE_BYTES_SETTING}")

    async def make_read_only(self) -> None:
        """Make new sessions of the bank replicas read-only and end the old ones; after 1 to 3 s let new sessions write
        again.

        The sessions that the replicas opened in between stay read-only, so the replicas have to replace them.
        """
        settings = {"default_transaction_read_only": "off"}  # this session stays writable
        try:
            ledger = await asyncpg.connect(
                self._under_test.target.ledger, timeout=_TIMEOUT_SECONDS, server_settings=settings
            )
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return
        try:
            await ledger.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on")
            await ledger.execute(_END_OTHER_SESSIONS)
            await asyncio.sleep(self._rng.uniform(1, 3))
        finally:
            await ledger.execute("ALTER ROLE CURRENT_USER RESET default_transaction_read_only")
            await ledger.close()

    async def send_skewed_tokens(self) -> None:
        """Send tokens that were signed with a clock one minute ahead or one hour behind. All must be rejected.

        Raises:
            WrongBehaviourError: a token was accepted.
        """
        path = f"{self._under_test.target.host}/accounts/{CUSTOMERS['alice'].account}"
        key = self._system.data / "keys" / "development.pem"
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
            for ahead in (_CLOCK_AHEAD_SECONDS, -_CLOCK_BEHIND_SECONDS):
                headers = {"Authorization": f"Bearer {_sign_token_at(key, time.time() + ahead)}"}
                with suppress(httpx.HTTPError):
                    if (await http.get(path, headers=headers)).status_code == HTTPStatus.OK:
                        raise WrongBehaviourError(
                            f"a token of an issuer whose clock is {ahead:+.0f} s off was accepted"
                        )

    async def _kill(self, name: str) -> None:
        if (pid := self._pid(name)) is not None:
            os.kill(pid, signal.SIGKILL)

    async def _freeze(self, name: str, seconds: float | None = None) -> None:
        if (pid := self._pid(name)) is None:
            return
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds or self._rng.choice((0.3, 1.0, 3.0)))
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _disconnect(self, name: str) -> None:
        self._under_test.proxies[name].disconnect()

    async def _stall(self, name: str) -> None:
        proxy = self._under_test.proxies[name]
        proxy.stall()
        try:
            await asyncio.sleep(self._rng.choice((0.3, 1.0, 3.0)))
        finally:
            proxy.resume()

    async def _restart(self, name: str) -> None:
        await self._system.supervisor.stop_process(name)
        await self._system.supervisor.start_process(name)

    def _pid(self, name: str) -> int | None:
        """Return the process id, or None if the process does not run."""
        try:
            return self._system.pid(name)
        except LookupError:
            return None


def _sign_token_at(key_file: Path, now: float) -> str:
    """Return a token for alice, signed as if the time were `now`."""
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)  # noqa: S101  the type of all development keys
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": CUSTOMERS["alice"].user, "roles": [Role.CUSTOMER]}
    times = {"iat": int(now), "exp": int(now + _TOKEN_LIFETIME_SECONDS)}
    kid = public_jwk(key.public_key())["kid"]
    return jwt.encode(claims | times, key, algorithm=ALGORITHM, headers={"kid": kid})
