"""Process of the sandbox acquirer: `python -m sandbox`."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

import structlog
from pydantic import AfterValidator, Field, HttpUrl, SecretStr, model_validator

from kit.http.server import http_server
from kit.runtime import process
from kit.runtime.service import run_service
from kit.runtime.settings import Address, LogSettings
from sandbox.acquirer import Acquirer
from sandbox.api import build_app
from sandbox.books import Books
from sandbox.middleware import RandomFailureMiddleware, RequestMiddleware
from sandbox.webhooks import WebhookSender

log = structlog.get_logger(__name__)

_HEADERS: Final = [("Server", "sandbox-acquirer"), ("X-Sandbox", "true")]
_REFUSAL: Final = "This is a sandbox that moves no money. Set SANDBOX_IS_NOT_PRODUCTION=true to start it.\n"


def _require_sandbox_prefix(key: SecretStr) -> SecretStr:
    if not key.get_secret_value().startswith("sandbox_"):
        raise ValueError("must begin with sandbox_, so that it cannot be mistaken for a production key")
    return key


class Settings(LogSettings):
    """Settings of the sandbox. Each field is read from the environment variable of the same name."""

    created_files: ClassVar[frozenset[str]] = frozenset({"sandbox_books"})

    sandbox_listen: Address = Field("127.0.0.1:8090", description="address of the acquirer's API and of health checks")
    sandbox_api_key: Annotated[SecretStr, AfterValidator(_require_sandbox_prefix)] = Field(
        description="the merchant's API key, sent as a bearer token; it begins with sandbox_, unlike any production key"
    )
    sandbox_books: Path = Field(description="SQLite file of all payments, created if missing")
    sandbox_webhook_url: HttpUrl | None = Field(
        None, description="the merchant's webhook address; without it no webhooks are sent"
    )
    sandbox_webhook_secret: SecretStr | None = Field(None, description="secret that signs webhooks, whsec_…")
    sandbox_delay_seconds: float = Field(0.0, ge=0, description="delay of every request to the API, in seconds")
    sandbox_failure_rate: float = Field(
        0.0, ge=0, le=1, description="fraction of the requests to the API that fail with status 503, from 0 to 1"
    )
    sandbox_seed: int = Field(0, description="seed of the random failures; the same seed fails the same requests")
    sandbox_timeout_seconds: float = Field(
        30.0, gt=0, description="maximum time without a response for test cards that time out, in seconds"
    )
    sandbox_late_seconds: float = Field(3.0, ge=0, description="delay of late authorizations and webhooks, in seconds")

    @model_validator(mode="after")
    def _no_webhook_without_secret(self) -> Self:
        if self.sandbox_webhook_url and not self.sandbox_webhook_secret:
            raise ValueError("SANDBOX_WEBHOOK_URL needs SANDBOX_WEBHOOK_SECRET")
        return self


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    log.warning("this is a sandbox acquirer: it moves no money")
    webhook_added = asyncio.Event()
    async with AsyncExitStack() as stack:
        delay = timedelta(seconds=settings.sandbox_late_seconds) if settings.sandbox_webhook_url else None
        books = stack.enter_context(Books.open(settings.sandbox_books, delay, webhook_added.set))
        if settings.sandbox_webhook_url and settings.sandbox_webhook_secret:
            url, secret = str(settings.sandbox_webhook_url), settings.sandbox_webhook_secret.get_secret_value()
            webhooks = await stack.enter_async_context(WebhookSender.connect(books, webhook_added, url, secret))
            await stack.enter_async_context(process.restarting_tasks({"webhooks": webhooks.run}))
        acquirer = Acquirer(
            books,
            stop,
            timeout_seconds=settings.sandbox_timeout_seconds,
            late_seconds=settings.sandbox_late_seconds,
        )
        failing = RandomFailureMiddleware(
            build_app(acquirer, {"books": books.check_writable}),
            delay_seconds=settings.sandbox_delay_seconds,
            rate=settings.sandbox_failure_rate,
            seed=settings.sandbox_seed,
        )
        guarded = RequestMiddleware(failing, settings.sandbox_api_key.get_secret_value())
        await stack.enter_async_context(http_server(guarded, settings.sandbox_listen, headers=_HEADERS))
        await stop.wait()


if __name__ == "__main__":
    if os.environ.get("SANDBOX_IS_NOT_PRODUCTION") != "true":
        sys.stderr.write(_REFUSAL)
        sys.exit(2)
    run_service("sandbox", Settings, serve)
