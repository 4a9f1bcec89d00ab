"""Telling the merchant what has changed: signed as Standard Webhooks has it, at least once."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final, Self

import httpx
import standardwebhooks
import structlog

from sandbox.books import Books, Webhook

log = structlog.get_logger(__name__)

_BATCH: Final = 32
_TIMEOUT_SECONDS: Final = 5.0
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 60.0


class Webhooks:
    """Delivers what the books hold for delivery. A webhook goes out again when the process is lost between the
    merchant's answer and the note of it.
    """

    def __init__(self, books: Books, news: asyncio.Event, http: httpx.AsyncClient, url: str, secret: str) -> None:
        self._books = books
        self._news = news
        self._http = http
        self._url = url
        self._signer = standardwebhooks.Webhook(secret)

    @classmethod
    @asynccontextmanager
    async def to(cls, books: Books, news: asyncio.Event, url: str, secret: str) -> AsyncIterator[Self]:
        """Args:
        books: whose webhooks.
        news: set by the books when there is a webhook more.
        url: where the merchant listens.
        secret: shared with the merchant, `whsec_` and base64.
        """
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
            yield cls(books, news, http, url, secret)

    async def run(self) -> None:
        """Delivers for ever: one after the other of the same payment, different payments at once."""
        while True:
            self._news.clear()
            by_payment = defaultdict[str, list[Webhook]](list)
            for webhook in self._books.due(datetime.now(UTC), _BATCH):
                by_payment[webhook.payment_id].append(webhook)
            if by_payment:
                await asyncio.gather(*map(self._deliver, by_payment.values()))
            else:
                await self._wait()

    async def _wait(self) -> None:
        """Returns when there may be something to deliver."""
        at = self._books.next_due()
        seconds = None if at is None else max(0.0, at - datetime.now(UTC).timestamp())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def _deliver(self, webhooks: Sequence[Webhook]) -> None:
        for webhook in webhooks:
            problem = await self._post(webhook)
            if problem is None:
                self._books.delivered(webhook)
                continue
            pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(webhook.failures, 32), _LONGEST_PAUSE_SECONDS)
            log.warning("webhook not taken", webhook=webhook.id, problem=problem, again_seconds=pause)
            self._books.failed(webhook, datetime.now(UTC) + timedelta(seconds=pause))

    async def _post(self, webhook: Webhook) -> str | None:
        """Why the merchant has not taken it; None if it has."""
        at = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": webhook.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._signer.sign(webhook.id, at, webhook.body),
        }
        try:
            response = await self._http.post(self._url, content=webhook.body, headers=headers)
        except httpx.HTTPError as error:
            return type(error).__name__
        return None if response.is_success else f"answered {response.status_code}"
