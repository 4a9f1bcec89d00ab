"""Recovery probe: synthetic transactions of each kind, which show whether everything works again."""

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
_POLL_SECONDS: Final = 0.1
_TOKEN_SECONDS: Final = 24 * 3_600.0
_CARD: Final = {"number": CARDS[GOOD], "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}


class NotRecoveredError(AssertionError):
    """A part of the system did not recover on its own. The message names this part."""


class RecoveryProbe:
    """Client of the seeded user alice. The load does not use her accounts. Use as an async context manager.

    It needs an embedded stack, because it signs alice's token with the key of the stack.
    """

    def __init__(self, target: Target) -> None:
        signer = target.signer
        assert signer is not None and target.data is not None  # noqa: S101, PT018  an embedded stack has its keys
        self._token = signer.sign(CUSTOMERS["alice"].user, _TOKEN_SECONDS, [Role.CUSTOMER])
        self._password = (target.data / "keys" / f"{PASSWORD}.secret").read_text()
        self._http = httpx.AsyncClient(base_url=target.host, timeout=_TIMEOUT_SECONDS, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    @property
    def checks(self) -> Mapping[str, Callable[[], Awaitable[bool]]]:
        """Return the checks by kind of transaction. A check returns whether the transaction works now."""
        return {
            "transfer": self.can_transfer,
            "history": self.can_read_operation,
            "top-up": self.can_top_up,
            "sign-in": self.can_log_in,
        }

    async def wait_until_recovered(self, timeout_seconds: float) -> float:
        """Wait until each check has succeeded once.

        Args:
            timeout_seconds: time after which a check that still fails is an error.

        Returns:
            Seconds until the last check succeeded.

        Raises:
            NotRecoveredError: a check still fails after the time-out.
        """
        began = time.monotonic()

        async def wait_for(name: str, check: Callable[[], Awaitable[bool]]) -> None:
            while not await self._succeeds(check):
                if time.monotonic() - began > timeout_seconds:
                    raise NotRecoveredError(f"{name} still fails after {timeout_seconds:.0f} s")
                await asyncio.sleep(_POLL_SECONDS)

        await asyncio.gather(*(wait_for(name, check) for name, check in self.checks.items()))
        return time.monotonic() - began

    async def can_transfer(self) -> bool:
        """Transfer one kopeck from alice to bob; return whether the transfer was made."""
        return (await self._transfer()).status_code == HTTPStatus.CREATED

    async def can_read_operation(self) -> bool:
        """Make a transfer; return whether alice's operations contain it within about 2 s."""
        transfer = await self._transfer()
        for _ in range(20):
            path = f"/accounts/{CUSTOMERS['alice'].account}/operations?limit=20"
            page = (await self._http.get(path, headers=self._headers)).json()
            if transfer.json().get("id") in {each["id"] for each in page.get("operations", ())}:
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def can_top_up(self) -> bool:
        """Make a top-up; return whether it completes at once."""
        body = {"amount": "0.01", "card": _CARD}
        path = f"/accounts/{CUSTOMERS['alice'].account}/topup"
        response = await self._http.post(path, json=body, headers=self._headers | {"Idempotency-Key": uuid4().hex})
        top_up: dict[str, Any] = response.json()
        return response.status_code == HTTPStatus.ACCEPTED and top_up["status"] == "COMPLETED"

    async def can_log_in(self) -> bool:
        """Log in with the password; return whether the login succeeded."""
        credentials = {"username": "alice", "password": self._password}
        return (await self._http.post("/auth/login", json=credentials)).status_code == HTTPStatus.OK

    async def _transfer(self) -> httpx.Response:
        body = {"recipientId": CUSTOMERS["bob"].account, "amount": "0.01", "currency": "RUB"}
        path = f"/accounts/{CUSTOMERS['alice'].account}/transfers"
        return await self._http.post(path, json=body, headers=self._headers | {"Idempotency-Key": uuid4().hex})

    async def _succeeds(self, check: Callable[[], Awaitable[bool]]) -> bool:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return await check()
        except (httpx.HTTPError, TimeoutError, ValueError):
            return False

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}
