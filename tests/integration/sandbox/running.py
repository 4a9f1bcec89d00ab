"""Runs the sandbox as in production, with an HTTP client and a webhook listener for tests."""

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
    """Webhook listener that verifies signature and schema. `events` has the events in order of arrival."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/webhooks"
        self.events: list[dict[str, Any]] = []
        self.statuses: list[int] = []  # HTTP statuses of the first responses; later ones are 204
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

    def received_statuses(self, payment_id: str) -> list[str]:
        """Return the statuses in the events of a payment, in order of arrival."""
        return [event["payment"]["status"] for event in self.events if event["payment"]["id"] == payment_id]

    async def wait_for_statuses(self, payment_id: str, *statuses: str) -> None:
        """Wait until exactly these statuses have arrived, in this order."""

        async def have_arrived() -> bool:
            return len(self.received_statuses(payment_id)) >= len(statuses)

        await until(have_arrived, every=0.01)
        assert self.received_statuses(payment_id) == list(statuses)


class Merchant:
    """HTTP client of a sandbox. Every response is validated against the contract."""

    def __init__(self, url: str, **options: Any) -> None:
        options.setdefault("headers", {"Authorization": f"Bearer {API_KEY}"})
        self.http = httpx.AsyncClient(
            base_url=url,
            trust_env=False,
            verify=False,  # no TLS; loading the certificates is slow
            event_hooks={"response": [ACQUIRER.check_hook]},
            timeout=10,
            **options,
        )

    async def tokenize(self, number: str, **overrides: Any) -> httpx.Response:
        card = {"number": number, "expiryMonth": 12, "expiryYear": 2099, "cvv": "123", **overrides}
        return await self.http.post("/v1/tokens", json=card)

    async def token(self, number: str) -> str:
        response = await self.tokenize(number, cvv="1234" if number.startswith("37") else "123")
        assert response.status_code == 201, response.text
        token: str = response.json()["token"]
        return token

    async def authorize(self, token: str, key: str, *, timeout_seconds: float = 10, **overrides: Any) -> httpx.Response:
        order = {"token": token, "amount": "10.00", "currency": "RUB", "reference": "top-up", **overrides}
        return await self._post("/v1/payments", key, order, timeout_seconds)

    async def change(self, step: str, payment_id: str, key: str, *, timeout_seconds: float = 10) -> httpx.Response:
        return await self._post(f"/v1/payments/{payment_id}/{step}", key, None, timeout_seconds)

    async def cancel(self, key: str) -> httpx.Response:
        return await self.http.post("/v1/cancellations", json={"idempotencyKey": key})

    async def create_payment(self, number: str, *steps: str) -> dict[str, Any]:
        """Authorize a payment, make the changes in `steps`, and return the payment. All requests must succeed."""
        response = await self.authorize(await self.token(number), uuid.uuid4().hex)
        assert response.status_code == 201, response.text
        for step in steps:
            response = await self.change(step, response.json()["id"], uuid.uuid4().hex)
            assert response.status_code == 200, response.text
        payment: dict[str, Any] = response.json()
        return payment

    async def payment(self, payment_id: str) -> dict[str, Any]:
        payment: dict[str, Any] = (await self.http.get(f"/v1/payments/{payment_id}")).json()
        return payment

    async def find_payments(self, key: str) -> list[dict[str, Any]]:
        """Return the payments that were created with a key, also declined ones."""
        response = await self.http.get("/v1/payments", params={"idempotencyKey": key})
        payments: list[dict[str, Any]] = response.json()["payments"]
        return payments

    async def wait_until_free(self, key: str) -> None:
        """Wait until no request with the key is in progress."""

        async def is_free() -> bool:
            probe = await self._post("/v1/payments/none/capture", key, None, 10)
            return code(probe) != "KEY_IN_USE"

        await until(is_free, every=0.01)

    async def _post(self, path: str, key: str, body: object, timeout_seconds: float) -> httpx.Response:
        return await self.http.post(path, json=body, headers={"Idempotency-Key": key}, timeout=timeout_seconds)


def code(response: httpx.Response) -> str | None:
    """Return the error code, or None."""
    error: str | None = response.json().get("code")
    return error


def build_settings(folder: Path, **overrides: Any) -> dict[str, str]:
    """Return the settings of a sandbox with its books in the folder."""
    (port,) = free_ports(1)
    settings = {
        "sandbox_listen": f"127.0.0.1:{port}",
        "sandbox_api_key": API_KEY,
        "sandbox_books": folder / "books",
        "sandbox_webhook_secret": SECRET,
        **overrides,
    }
    return {name: str(value) for name, value in settings.items() if value is not None}


@asynccontextmanager
async def running(folder: Path, **overrides: Any) -> AsyncIterator[Merchant]:
    """Run the sandbox in this process and yield a client."""
    environment = build_settings(folder, **overrides)
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


def process(folder: Path, **overrides: Any) -> tuple[Child, str]:
    """Return the sandbox as a child process that is not started yet, and its URL."""
    environment = build_settings(folder, **overrides)
    url = f"http://{environment['sandbox_listen']}"
    upper = {name.upper(): value for name, value in environment.items()}
    command = module("sandbox", **{"SANDBOX_IS_NOT_PRODUCTION": "true", **upper})
    return Child(Process(name="sandbox", command=command, ready=probes.http(f"{url}/health/live"))), url
