"""Somebody who does one thing of each kind, to see whether all of it works (again)."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, Self
from uuid import uuid4

import httpx

from kit.auth.principal import Role
from loadtests.rest import CARDS, GOOD
from loadtests.target import Target
from provisioning.seed import CUSTOMERS
from stack.plan import PASSWORD

_TIMEOUT_SECONDS: Final = 6.0
_EVERY_SECONDS: Final = 0.1
_HOUR: Final = 3_600.0
_CARD: Final = {"number": CARDS[GOOD], "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}


class NotBackError(AssertionError):
    """Something did not come back by itself; the message says what."""


class Canary:
    """Alice of the seed data, whose accounts no load touches. Open inside `async with`."""

    def __init__(self, target: Target) -> None:
        signer = target.signer
        assert signer is not None and target.data is not None  # noqa: S101, PT018  an embedded stack has its keys
        self._token = signer.sign(CUSTOMERS["alice"].user, 24 * _HOUR, [Role.CUSTOMER])
        self._password = (target.data / "keys" / f"{PASSWORD}.secret").read_text()
        self._http = httpx.AsyncClient(base_url=target.host, timeout=_TIMEOUT_SECONDS, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    @property
    def signs(self) -> Mapping[str, Callable[[], Awaitable[bool]]]:
        """Each kind of thing, and whether it works now."""
        return {"transfer": self.transfers, "history": self.sees_it, "top-up": self.pays_in, "sign-in": self.signs_in}

    async def until_well(self, within: float) -> float:
        """Returns when each kind of thing has worked once since this was called.

        Args:
            within: seconds of patience for each.

        Returns:
            Seconds until the last of them did.

        Raises:
            NotBackError: one does not.
        """
        began = time.monotonic()

        async def works(name: str, sign: Callable[[], Awaitable[bool]]) -> None:
            while not await self._asked(sign):
                if time.monotonic() - began > within:
                    raise NotBackError(f"{name} does not work {within:.0f} s after")
                await asyncio.sleep(_EVERY_SECONDS)

        await asyncio.gather(*(works(name, sign) for name, sign in self.signs.items()))
        return time.monotonic() - began

    async def transfers(self) -> bool:
        """A kopeck from Alice to Bob."""
        return (await self._transferred()).status_code == HTTPStatus.CREATED

    async def sees_it(self) -> bool:
        """A transfer stands in the history, some moments after."""
        made = await self._transferred()
        for _ in range(20):
            path = f"/accounts/{CUSTOMERS['alice'].account}/operations?limit=20"
            page = (await self._http.get(path, headers=self._headers)).json()
            if made.json().get("id") in {each["id"] for each in page.get("operations", ())}:
                return True
            await asyncio.sleep(_EVERY_SECONDS)
        return False

    async def pays_in(self) -> bool:
        """A top-up is completed at once."""
        body = {"amount": "0.01", "card": _CARD}
        path = f"/accounts/{CUSTOMERS['alice'].account}/topup"
        answer = await self._http.post(path, json=body, headers=self._headers | {"Idempotency-Key": uuid4().hex})
        told: dict[str, Any] = answer.json()
        return answer.status_code == HTTPStatus.ACCEPTED and told["status"] == "COMPLETED"

    async def signs_in(self) -> bool:
        """By name and password."""
        credentials = {"username": "alice", "password": self._password}
        return (await self._http.post("/auth/login", json=credentials)).status_code == HTTPStatus.OK

    async def _transferred(self) -> httpx.Response:
        body = {"recipientId": CUSTOMERS["bob"].account, "amount": "0.01", "currency": "RUB"}
        path = f"/accounts/{CUSTOMERS['alice'].account}/transfers"
        return await self._http.post(path, json=body, headers=self._headers | {"Idempotency-Key": uuid4().hex})

    async def _asked(self, sign: Callable[[], Awaitable[bool]]) -> bool:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return await sign()
        except (httpx.HTTPError, TimeoutError, ValueError):
            return False

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}
