"""The sandbox acquirer's process: `python -m sandbox`."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Self

import structlog
from pydantic import AfterValidator, Field, HttpUrl, SecretStr, model_validator

from kit.http.server import http_server
from kit.runtime import process
from kit.runtime.service import run_service
from kit.runtime.settings import Address, LogSettings
from sandbox.acquirer import Acquirer
from sandbox.api import build_app
from sandbox.books import Books
from sandbox.middleware import CallMiddleware, FailureMiddleware
from sandbox.webhooks import Webhooks

log = structlog.get_logger(__name__)

_HEADERS: Final = [("Server", "sandbox-acquirer"), ("X-Sandbox", "true")]
_REFUSAL: Final = (
    "This is a sandbox that moves no money: set SANDBOX_IS_NOT_PRODUCTION=true if that is what you want.\n"
)


def _marked(key: SecretStr) -> SecretStr:
    if not key.get_secret_value().startswith("sandbox_"):
        raise ValueError("begins with sandbox_, so that nobody takes it for one of production")
    return key


class Settings(LogSettings):
    """What the sandbox needs to know; each field is the environment variable of its name."""

    sandbox_listen: Address = Field("127.0.0.1:8090", description="the acquirer's API, and health")
    sandbox_api_key: Annotated[SecretStr, AfterValidator(_marked)] = Field(
        description="what the merchant sends as its bearer token: sandbox_…, which nobody takes for one of production"
    )
    sandbox_books: Path = Field(description="the SQLite file that holds all payments, made if it is not there")
    sandbox_webhook_url: HttpUrl | None = Field(
        None, description="where the merchant listens; nobody is told without it"
    )
    sandbox_webhook_secret: SecretStr | None = Field(None, description="what webhooks are signed with, whsec_…")
    sandbox_delay_seconds: float = Field(0.0, ge=0, description="how long every answer takes, at least")
    sandbox_failure_rate: float = Field(0.0, ge=0, le=1, description="the part of the requests that are answered 503")
    sandbox_seed: int = Field(0, description="of the failures: the same seed fails the same requests")
    sandbox_timeout_seconds: float = Field(30.0, gt=0, description="the longest silence of a card that times out")
    sandbox_late_seconds: float = Field(3.0, ge=0, description="how late a late authorization or webhook comes")

    @model_validator(mode="after")
    def _no_webhook_without_secret(self) -> Self:
        if self.sandbox_webhook_url and not self.sandbox_webhook_secret:
            raise ValueError("SANDBOX_WEBHOOK_URL needs SANDBOX_WEBHOOK_SECRET")
        return self


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set."""
    log.warning("this is a sandbox acquirer: it moves no money")
    news = asyncio.Event()
    async with AsyncExitStack() as stack:
        delay = timedelta(seconds=settings.sandbox_late_seconds) if settings.sandbox_webhook_url else None
        books = stack.enter_context(Books.open(settings.sandbox_books, delay, news.set))
        if settings.sandbox_webhook_url and settings.sandbox_webhook_secret:
            url, secret = str(settings.sandbox_webhook_url), settings.sandbox_webhook_secret.get_secret_value()
            webhooks = await stack.enter_async_context(Webhooks.to(books, news, url, secret))
            await stack.enter_async_context(process.background_task(webhooks.run(), "webhooks"))
        acquirer = Acquirer(
            books,
            stop,
            silence_seconds=settings.sandbox_timeout_seconds,
            late_seconds=settings.sandbox_late_seconds,
        )
        failing = FailureMiddleware(
            build_app(acquirer),
            delay_seconds=settings.sandbox_delay_seconds,
            rate=settings.sandbox_failure_rate,
            seed=settings.sandbox_seed,
        )
        guarded = CallMiddleware(failing, settings.sandbox_api_key.get_secret_value())
        await stack.enter_async_context(http_server(guarded, settings.sandbox_listen, headers=_HEADERS))
        await stop.wait()


if __name__ == "__main__":
    if os.environ.get("SANDBOX_IS_NOT_PRODUCTION") != "true":
        sys.stderr.write(_REFUSAL)
        sys.exit(2)
    run_service("sandbox", Settings, serve)
