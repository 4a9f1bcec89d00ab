"""A sandbox that runs as it ships, a merchant that uses it, and a listener for its webhooks."""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import standardwebhooks
from fastapi import FastAPI, Request, Response

from kit.http.server import http_server
from sandbox.__main__ import Settings, serve
from stack import probes
from stack.ports import free_ports
from stack.process import Child, Process, module
from tests.openapi import ACQUIRER
from tests.waiting import until

API_KEY = "sandbox_merchant"
SECRET = "whsec_" + base64.b64encode(b"known to both sides, and to nobody else").decode()
APPROVED = "4242424242424242"


class Listener:
    """Where a merchant listens. What comes is verified and held against the contract; `events` has it in order."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/webhooks"
        self.events: list[dict[str, Any]] = []
        self.statuses: list[int] = []  # what to answer first, before it is all 204
        self._listen = f"127.0.0.1:{port}"
        self._verifier = standardwebhooks.Webhook(SECRET)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        app = FastAPI()

        @app.post("/webhooks")
        async def take(request: Request) -> Response:
            event = self._verifier.verify(await request.body(), dict(request.headers))
            ACQUIRER.check_schema("Event", event)
            assert request.headers["webhook-id"] == event["id"]
            self.events.append(event)
            return Response(status_code=self.statuses.pop(0) if self.statuses else 204)

        async with http_server(app, self._listen):
            yield

    def told(self, payment_id: str) -> list[str]:
        """The statuses that came of a payment."""
        return [event["payment"]["status"] for event in self.events if event["payment"]["id"] == payment_id]

    async def until_told(self, payment_id: str, *statuses: str) -> None:
        """Returns when exactly these have come of the payment, in this order."""

        async def has_come() -> bool:
            return len(self.told(payment_id)) >= len(statuses)

        await until(has_come, every=0.01)
        assert self.told(payment_id) == list(statuses)


class Merchant:
    """Uses a sandbox. Every answer is held against the contract."""

    def __init__(self, url: str, **options: Any) -> None:
        options.setdefault("headers", {"Authorization": f"Bearer {API_KEY}"})
        self.http = httpx.AsyncClient(
            base_url=url,
            trust_env=False,
            verify=False,  # there is no TLS, and what it needs takes long to load
            event_hooks={"response": [ACQUIRER.check_hook]},
            timeout=10,
            **options,
        )

    async def tokenize(self, number: str, **given: Any) -> httpx.Response:
        card = {"number": number, "expiryMonth": 12, "expiryYear": 2099, "cvv": "123", **given}
        return await self.http.post("/v1/tokens", json=card)

    async def token(self, number: str) -> str:
        answer = await self.tokenize(number, cvv="1234" if number.startswith("37") else "123")
        assert answer.status_code == 201, answer.text
        token: str = answer.json()["token"]
        return token

    async def authorize(self, token: str, key: str, *, patience: float = 10, **given: Any) -> httpx.Response:
        order = {"token": token, "amount": "10.00", "currency": "RUB", "reference": "top-up", **given}
        return await self._post("/v1/payments", key, order, patience)

    async def change(self, step: str, payment_id: str, key: str, *, patience: float = 10) -> httpx.Response:
        return await self._post(f"/v1/payments/{payment_id}/{step}", key, None, patience)

    async def cancel(self, key: str) -> httpx.Response:
        return await self.http.post("/v1/cancellations", json={"idempotencyKey": key})

    async def paid(self, number: str, *steps: str) -> dict[str, Any]:
        """A payment with the card after these steps, none of which may go wrong."""
        answer = await self.authorize(await self.token(number), uuid.uuid4().hex)
        assert answer.status_code == 201, answer.text
        for step in steps:
            answer = await self.change(step, answer.json()["id"], uuid.uuid4().hex)
            assert answer.status_code == 200, answer.text
        payment: dict[str, Any] = answer.json()
        return payment

    async def payment(self, payment_id: str) -> dict[str, Any]:
        payment: dict[str, Any] = (await self.http.get(f"/v1/payments/{payment_id}")).json()
        return payment

    async def authorized_by(self, key: str) -> list[dict[str, Any]]:
        """What the lookup by key shows."""
        answer = await self.http.get("/v1/payments", params={"idempotencyKey": key})
        found: list[dict[str, Any]] = answer.json()["payments"]
        return found

    async def until_free(self, key: str) -> None:
        """Returns when no request is at work under the key any more."""

        async def is_free() -> bool:
            probe = await self._post("/v1/payments/none/capture", key, None, 10)
            return code(probe) != "KEY_IN_USE"

        await until(is_free, every=0.01)

    async def _post(self, path: str, key: str, body: object, patience: float) -> httpx.Response:
        return await self.http.post(path, json=body, headers={"Idempotency-Key": key}, timeout=patience)


def code(answer: httpx.Response) -> str | None:
    """The error's machine name; None if it is no error."""
    found: str | None = answer.json().get("code")
    return found


def environment_of(folder: Path, **given: Any) -> dict[str, str]:
    """The settings of a sandbox whose books are in the folder."""
    (port,) = free_ports(1)
    settings = {
        "sandbox_listen": f"127.0.0.1:{port}",
        "sandbox_api_key": API_KEY,
        "sandbox_books": folder / "books",
        "sandbox_webhook_secret": SECRET,
        **given,
    }
    return {name: str(value) for name, value in settings.items() if value is not None}


@asynccontextmanager
async def running(folder: Path, **given: Any) -> AsyncIterator[Merchant]:
    """The sandbox's own composition in this process, and a merchant of it."""
    environment = environment_of(folder, **given)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(Settings.model_validate(environment), stop))
    merchant = Merchant(f"http://{environment['sandbox_listen']}")
    try:
        async with merchant.http:
            ready = probes.http(f"http://{environment['sandbox_listen']}/health/ready")

            async def is_ready() -> bool:
                if serving.done():
                    serving.result()
                return await ready()

            await until(is_ready, every=0.01)
            yield merchant
    finally:
        stop.set()
        await serving


def process(folder: Path, **given: Any) -> tuple[Child, str]:
    """The sandbox as a process of its own, which can be killed, and its URL. It does not run yet."""
    environment = environment_of(folder, **given)
    url = f"http://{environment['sandbox_listen']}"
    upper = {name.upper(): value for name, value in environment.items()}
    command = module("sandbox", **{"SANDBOX_IS_NOT_PRODUCTION": "true", **upper})
    return Child(Process(name="sandbox", command=command, ready=probes.http(f"{url}/health/live"))), url
