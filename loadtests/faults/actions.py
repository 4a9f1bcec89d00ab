"""One fault each: something is broken, and mended."""

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

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kit.auth.jwk import ALGORITHM, public_jwk
from kit.auth.principal import Role
from loadtests.faults.system import BANKS, Fragile
from provisioning.seed import CUSTOMERS
from stack.plan import AUDIENCE, ISSUER
from stack.ports import HOST

Fault: TypeAlias = Callable[[], Awaitable[None]]
"""Breaks something, and returns when whoever breaks it has let go of it: it may still be on its way back."""

_LEADS: Final = "wallet_bank_outbox_leads 1.0"
_TIMEOUT_SECONDS: Final = 5.0
_LEAST_FREE: Final = "min_free_disk_bytes_to_perform_insert"
_MORE_THAN_THERE_IS: Final = 10**17
_LIFETIME_SECONDS: Final = 600.0
_AHEAD_SECONDS: Final = 60.0  # far more than a verifier forgives
_BEHIND_SECONDS: Final = 3_600.0  # what it signs has expired by now
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


class WrongError(AssertionError):
    """The system did what it must not; the message says what."""


class Actions:
    """Faults of one system. What they choose they choose by `chance`."""

    def __init__(self, fragile: Fragile, chance: random.Random) -> None:
        self._fragile = fragile
        self._chance = chance
        self._system = fragile.system

    def by_name(self) -> Mapping[str, Fault]:
        """Every fault there is."""
        faults: dict[str, Fault] = {}
        for name in _KILLED:
            faults[f"kill {name}"] = lambda name=name: self._kill(name)  # type: ignore[misc]
        for name in _FROZEN:
            faults[f"freeze {name}"] = lambda name=name: self._freeze(name)  # type: ignore[misc]
        for name in self._fragile.wires:
            faults[f"cut off {name}"] = lambda name=name: self._cut(name)  # type: ignore[misc]
            faults[f"stall {name}"] = lambda name=name: self._stall(name)  # type: ignore[misc]
        for name in ("postgres", "kafka"):
            faults[f"restart {name}"] = lambda name=name: self._restart(name)  # type: ignore[misc]
        return faults | {
            "freeze the relay's leader": self.freeze_leader,
            "fill the disk of clickhouse": self.fill_disk,
            "show tokens of a skewed clock": self.skew_clock,
        }

    async def freeze_leader(self) -> None:
        """The bank that publishes stops for longer than its session is respected: another one takes over."""
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
            for name in BANKS:
                with suppress(httpx.HTTPError):
                    if _LEADS in (await http.get(f"{self._fragile.admins[name]}/metrics")).text:
                        await self._freeze(name, 12.0)
                        return

    async def fill_disk(self) -> None:
        """ClickHouse takes no row for some seconds and says why, as it does when its disk is full: by a setting, for a
        disk that is really full would be everybody's.
        """
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:

            async def alter(change: str) -> None:
                with suppress(httpx.HTTPError):
                    url = f"http://{HOST}:{self._system.ports.clickhouse}"
                    await http.post(url, content=f"ALTER TABLE wallet.operations {change}")

            await alter(f"MODIFY SETTING {_LEAST_FREE} = {_MORE_THAN_THERE_IS}")
            try:
                await asyncio.sleep(self._chance.uniform(1, 3))
            finally:
                await alter(f"RESET SETTING {_LEAST_FREE}")

    async def skew_clock(self) -> None:
        """Tokens of an issuer whose clock is a minute ahead, or was an hour behind: nobody is let in by them.

        Raises:
            WrongError: somebody was.
        """
        path = f"{self._fragile.target.host}/accounts/{CUSTOMERS['alice'].account}"
        key = self._system.data / "keys" / "development.pem"
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
            for ahead in (_AHEAD_SECONDS, -_BEHIND_SECONDS):
                headers = {"Authorization": f"Bearer {_signed_at(key, time.time() + ahead)}"}
                with suppress(httpx.HTTPError):
                    if (await http.get(path, headers=headers)).status_code == HTTPStatus.OK:
                        raise WrongError(f"a token of a clock {ahead:+.0f} s was believed")

    async def _kill(self, name: str) -> None:
        if (pid := self._pid(name)) is not None:
            os.kill(pid, signal.SIGKILL)

    async def _freeze(self, name: str, seconds: float | None = None) -> None:
        if (pid := self._pid(name)) is None:
            return
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds or self._chance.choice((0.3, 1.0, 3.0)))
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _cut(self, name: str) -> None:
        self._fragile.wires[name].cut()

    async def _stall(self, name: str) -> None:
        wire = self._fragile.wires[name]
        wire.stall()
        try:
            await asyncio.sleep(self._chance.choice((0.3, 1.0, 3.0)))
        finally:
            wire.resume()

    async def _restart(self, name: str) -> None:
        await self._system.supervisor.stop_process(name)
        await self._system.supervisor.start_process(name)

    def _pid(self, name: str) -> int | None:
        """Unless it is away already."""
        try:
            return self._system.pid(name)
        except LookupError:
            return None


def _signed_at(key_file: Path, now: float) -> str:
    """A token for Alice as the issuer would sign it if it were `now`."""
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)  # noqa: S101  as `provisioning.keys` makes them
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": CUSTOMERS["alice"].user, "roles": [Role.CUSTOMER]}
    times = {"iat": int(now), "exp": int(now + _LIFETIME_SECONDS)}
    kid = public_jwk(key.public_key())["kid"]
    return jwt.encode(claims | times, key, algorithm=ALGORITHM, headers={"kid": kid})
