"""Delivery of webhooks to the merchant: at least once, signed as in the Standard Webhooks specification."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final, Self

import aiohttp
import standardwebhooks
import structlog

from sandbox.books import Books, Webhook

log = structlog.get_logger(__name__)

_BATCH: Final = 32
_TIMEOUT_SECONDS: Final = 5.0
_FIRST_DELAY_SECONDS: Final = 0.1
_MAX_DELAY_SECONDS: Final = 60.0


class WebhookSender:
    """Sends the stored webhooks. A kill -9 between a delivery and its record causes a second delivery."""

    def __init__(
        self, books: Books, webhook_added: asyncio.Event, http: aiohttp.ClientSession, url: str, secret: str
    ) -> None:
        self._books = books
        self._webhook_added = webhook_added
        self._http = http
        self._url = url
        self._signer = standardwebhooks.Webhook(secret)

    @classmethod
    @asynccontextmanager
    async def connect(cls, books: Books, webhook_added: asyncio.Event, url: str, secret: str) -> AsyncIterator[Self]:
        """Args:
        books: storage of the webhooks.
        webhook_added: set by the books after a webhook was added.
        url: the merchant's webhook address.
        secret: signing secret shared with the merchant: `whsec_` and base64.
        """
        timeout, cookies = aiohttp.ClientTimeout(_TIMEOUT_SECONDS), aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=cookies) as http:
            yield cls(books, webhook_added, http, url, secret)

    async def run(self) -> None:
        """Deliver until cancelled.

        The webhooks of one payment are sent one after the other; after a failure the next webhook does not wait for the
        retry. Webhooks of different payments are sent concurrently.
        """
        while True:
            self._webhook_added.clear()
            by_payment = defaultdict[str, list[Webhook]](list)
            for webhook in self._books.due(datetime.now(UTC), _BATCH):
                by_payment[webhook.payment_id].append(webhook)
            if by_payment:
                await asyncio.gather(*map(self._deliver, by_payment.values()))
            else:
                await self._wait_until_due()

    async def _wait_until_due(self) -> None:
        """Wait until a webhook may be due."""
        at = self._books.next_due()
        seconds = None if at is None else max(0.0, at - datetime.now(UTC).timestamp())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._webhook_added.wait()

    async def _deliver(self, webhooks: Sequence[Webhook]) -> None:
        for webhook in webhooks:
            error = await self._post(webhook)
            if error is None:
                self._books.record_delivery(webhook)
                continue
            delay = min(_FIRST_DELAY_SECONDS * 2.0 ** min(webhook.failures, 32), _MAX_DELAY_SECONDS)
            log.warning("webhook delivery failed", webhook=webhook.id, error=error, retry_seconds=delay)
            self._books.record_failure(webhook, datetime.now(UTC) + timedelta(seconds=delay))

    async def _post(self, webhook: Webhook) -> str | None:
        """Send the webhook; return the error, or None if the merchant accepted it."""
        at = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": webhook.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._signer.sign(webhook.id, at, webhook.body),
        }
        try:
            async with self._http.post(
                self._url, data=webhook.body, headers=headers, allow_redirects=False
            ) as response:
                await response.read()  # so that the connection is free for the next webhook
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__
        is_accepted = HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES
        return None if is_accepted else f"status {response.status}"
