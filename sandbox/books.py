"""SQLite storage of the acquirer, with all its SQL. Payments survive kill -9."""

import hashlib
import hmac
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from openapi.acquirer import Brand, Code, DeclineCode, PaymentStatus
from sandbox import payments
from sandbox.behaviours import Step, WebhookDelivery
from sandbox.cards import BEHAVIOURS_BY_NAME, Card
from sandbox.messages import webhook_event_body, webhook_event_id
from sandbox.payments import AuthorizationOrder, KeyRecord, Payment, Refusal

# The WAL is not synced at each commit: kill -9 loses nothing, a power cut may lose the last commits.
_OPEN: Final = """
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA foreign_keys = ON;

    CREATE TABLE IF NOT EXISTS books (id TEXT NOT NULL, secret BLOB NOT NULL) STRICT;

    CREATE TABLE IF NOT EXISTS cards (
        token TEXT PRIMARY KEY,
        brand TEXT NOT NULL,
        last_four TEXT NOT NULL,
        behaviour TEXT NOT NULL
    ) STRICT;

    CREATE TABLE IF NOT EXISTS payments (
        id TEXT PRIMARY KEY,
        idempotency_key TEXT NOT NULL UNIQUE,
        token TEXT NOT NULL REFERENCES cards,
        status TEXT NOT NULL,
        decline_code TEXT,
        amount TEXT NOT NULL,
        currency TEXT NOT NULL,
        reference TEXT NOT NULL,
        created_at TEXT NOT NULL
    ) STRICT;

    CREATE TABLE IF NOT EXISTS keys (
        key TEXT PRIMARY KEY,
        request TEXT,
        payment_id TEXT REFERENCES payments,
        refusal TEXT,
        is_cancelled INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE IF NOT EXISTS attempts (key TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT;

    CREATE TABLE IF NOT EXISTS webhooks (
        id TEXT PRIMARY KEY,
        payment_id TEXT NOT NULL REFERENCES payments,
        body TEXT NOT NULL,
        deliveries INTEGER NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0,
        due_at REAL NOT NULL,
        turn INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS webhooks_due ON webhooks (due_at, turn);
    CREATE INDEX IF NOT EXISTS webhooks_payment ON webhooks (payment_id);
"""

_FAILURE_SECONDS: Final = 10.0
"""Time for which the sandbox is not ready after a failed transaction."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Webhook that has to be delivered.

    Attributes:
        id: event id, the same on every delivery.
        payment_id: the event's payment.
        body: JSON that is signed and sent.
        failures: number of failed deliveries.
    """

    id: str
    payment_id: str
    body: str
    failures: int


class Books:
    """Cards, payments, idempotency keys and webhooks. Only one process at a time can open the file.

    Each method is one transaction and blocks for well below a millisecond. A change and its webhook are
    written in one transaction.
    """

    def __init__(
        self, database: sqlite3.Connection, webhook_delay: timedelta | None, announce: Callable[[], None]
    ) -> None:
        """Args:
        database: connection made by `open`.
        webhook_delay: delay of late webhooks; None disables all webhooks.
        announce: called after a webhook was added; must not block.
        """
        self._sql = database
        self._webhook_delay = webhook_delay
        self._announce = announce
        id_, secret = database.execute("SELECT id, secret FROM books").fetchone()
        self._failed_at = float("-inf")
        self._id: str = id_
        self._secret: bytes = secret

    @classmethod
    @contextmanager
    def open(
        cls, file: Path, webhook_delay: timedelta | None = None, announce: Callable[[], None] = lambda: None
    ) -> Iterator[Self]:
        """Open the file; create it if it is missing.

        Raises:
            sqlite3.OperationalError: another process has the file open, or the file cannot be opened.
        """
        file.touch(mode=0o600)
        database = sqlite3.connect(file, timeout=0, isolation_level=None)
        database.row_factory = sqlite3.Row
        try:
            database.executescript(_OPEN)
            database.execute(
                "INSERT INTO books SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM books)",
                (secrets.token_hex(4), secrets.token_bytes(32)),
            )
            yield cls(database, webhook_delay, announce)
        finally:
            database.close()

    async def check_writable(self) -> None:
        """Health check: fail for ten seconds after a failed transaction, for example on a full disk.

        Raises:
            sqlite3.OperationalError: a transaction has failed in the last ten seconds.
        """
        if time.monotonic() - self._failed_at < _FAILURE_SECONDS:
            raise sqlite3.OperationalError("a transaction has failed")

    def token(self, number: str, expiry: tuple[int, int]) -> str:
        """Return the token of a card number and expiry: a keyed hash with the secret of this database."""
        card = f"{number} {expiry}".encode()
        return "tok_" + hmac.digest(self._secret, card, hashlib.sha256).hex()[:48]

    def save_card(self, card: Card) -> None:
        """Store the card under its token."""
        with self._transaction():
            self._sql.execute(
                """
                INSERT INTO cards VALUES (?, ?, ?, ?)
                ON CONFLICT (token) DO UPDATE SET behaviour = excluded.behaviour
                """,
                (card.token, card.brand, card.last_four, card.behaviour.name),
            )

    def card(self, token: str) -> Card:
        """Return the card of a token.

        Raises:
            Refusal: UNKNOWN_TOKEN.
        """
        row = self._sql.execute("SELECT * FROM cards WHERE token = ?", (token,)).fetchone()
        if row is None:
            raise Refusal(Code.unknown_token)
        return Card(row["token"], Brand(row["brand"]), row["last_four"], BEHAVIOURS_BY_NAME[row["behaviour"]])

    def count_attempt(self, key: str) -> int:
        """Count a request with the key and return the number of requests so far."""
        with self._transaction():
            [(count,)] = self._sql.execute(
                "INSERT INTO attempts VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET count = count + 1 RETURNING count",
                (key,),
            ).fetchall()
        return int(count)

    def authorize(self, order: AuthorizationOrder, key: str, at: datetime) -> Payment:
        """Create a payment, or return the payment that an earlier request with the key has created.

        Raises:
            Refusal: UNKNOWN_TOKEN, KEY_REUSED, KEY_CANCELLED.
        """
        with self._transaction():
            if record := self._key_record(key):
                return record.replay(order.request, self.authorized_by(key))
            card = self.card(order.token)
            (last,) = self._sql.execute("SELECT coalesce(max(rowid), 0) FROM payments").fetchone()
            payment = payments.authorize_payment(f"pay_{self._id}_{last + 1:012}", order, key, card.behaviour, at)
            self._sql.execute(
                "INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    payment.id,
                    payment.idempotency_key,
                    order.token,
                    payment.status,
                    payment.decline_code,
                    payment.amount,
                    payment.currency,
                    payment.reference,
                    payment.created_at.isoformat(),
                ),
            )
            self._save_key_record(key, KeyRecord(order.request), payment.id)
            self._add_webhook(payment, at)
            return payment

    def change(self, step: Step, payment_id: str, key: str, at: datetime) -> Payment:
        """Apply the step and return the payment; return its current state if the key was used for this step before.

        A refusal is recorded with the key, so a repeated request gets the same refusal.

        Raises:
            Refusal: NOT_FOUND, KEY_REUSED, KEY_CANCELLED, WRONG_STATUS, REFUSED.
        """
        request = payments.request_fingerprint(step, payment_id)
        with self._transaction():
            payment = self.payment(payment_id)
            if record := self._key_record(key):
                return record.replay(request, payment)
            try:
                after = payments.apply_step(payment, step)
            except Refusal as refusal:
                self._save_key_record(key, KeyRecord(request, refusal.code), payment_id)
                raise
            self._save_key_record(key, KeyRecord(request), payment_id)
            self._set_status(after, at)
            return after

    def cancel(self, key: str, at: datetime) -> Payment | None:
        """Cancel the key permanently, void its authorized payment, and return this payment; None if there is none.

        Raises:
            Refusal: the key's payment is captured (WRONG_STATUS), or the key belongs to another operation (KEY_REUSED).
        """
        with self._transaction():
            payment = self.authorized_by(key)
            if payment is None:
                if (record := self._key_record(key)) and record.request:
                    raise Refusal(Code.key_reused)
                self._save_key_record(key, KeyRecord(None, is_cancelled=True), None)
                return None
            after = payments.cancel_payment(payment)
            self._sql.execute("UPDATE keys SET is_cancelled = 1 WHERE key = ?", (key,))
            if after != payment:
                self._set_status(after, at)
            return after

    def payment(self, payment_id: str) -> Payment:
        """Return the current state of a payment.

        Raises:
            Refusal: NOT_FOUND.
        """
        payments = self._payments("WHERE id = ?", payment_id)
        if not payments:
            raise Refusal(Code.not_found)
        return payments[0]

    def authorized_by(self, key: str) -> Payment | None:
        """Return the payment that was created with the key, even a declined one; None if there is no such payment."""
        payments = self._payments("WHERE idempotency_key = ?", key)
        return payments[0] if payments else None

    def payments(self, after: str, limit: int) -> Sequence[Payment]:
        """Return payments with an id above `after`, in order of creation."""
        return self._payments("WHERE id > ? ORDER BY id LIMIT ?", after, limit)

    def due(self, now: datetime, limit: int) -> Sequence[Webhook]:
        """Return the webhooks that are due, in order of delivery."""
        rows = self._sql.execute(
            "SELECT id, payment_id, body, failures FROM webhooks WHERE due_at <= ? ORDER BY due_at, turn LIMIT ?",
            (now.timestamp(), limit),
        )
        return [Webhook(*row) for row in rows]

    def next_due(self) -> float | None:
        """Return the Unix time at which the next webhook is due; None if there is none."""
        (at,) = self._sql.execute("SELECT min(due_at) FROM webhooks").fetchone()
        return None if at is None else float(at)

    def record_delivery(self, webhook: Webhook) -> None:
        """Count a delivery, and delete the webhook after its last delivery."""
        with self._transaction():
            self._sql.execute("UPDATE webhooks SET deliveries = deliveries - 1 WHERE id = ?", (webhook.id,))
            self._sql.execute("DELETE FROM webhooks WHERE id = ? AND deliveries = 0", (webhook.id,))

    def record_failure(self, webhook: Webhook, retry_at: datetime) -> None:
        """Count a failed delivery, and schedule the next attempt."""
        with self._transaction():
            self._sql.execute(
                "UPDATE webhooks SET failures = failures + 1, due_at = ? WHERE id = ?",
                (retry_at.timestamp(), webhook.id),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run a transaction. A refusal commits, because it is recorded with its key; other errors roll back."""
        try:
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield
            except Refusal:
                self._sql.execute("COMMIT")
                raise
            self._sql.execute("COMMIT")
        except sqlite3.Error:
            self._failed_at = time.monotonic()
            raise
        finally:
            if self._sql.in_transaction:  # on a full disk, COMMIT fails and the transaction may stay open
                self._sql.execute("ROLLBACK")

    def _payments(self, where: str, *values: object) -> Sequence[Payment]:
        rows = self._sql.execute(f"SELECT * FROM payments JOIN cards USING (token) {where}", values)  # noqa: S608  `where` is constant
        return [
            Payment(
                id=row["id"],
                idempotency_key=row["idempotency_key"],
                behaviour=BEHAVIOURS_BY_NAME[row["behaviour"]],
                status=PaymentStatus(row["status"]),
                decline_code=DeclineCode(row["decline_code"]) if row["decline_code"] else None,
                amount=row["amount"],
                currency=row["currency"],
                reference=row["reference"],
                created_at=datetime.fromisoformat(row["created_at"]),
            )
            for row in rows
        ]

    def _key_record(self, key: str) -> KeyRecord | None:
        row = self._sql.execute("SELECT request, refusal, is_cancelled FROM keys WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        return KeyRecord(row["request"], Code(row["refusal"]) if row["refusal"] else None, bool(row["is_cancelled"]))

    def _save_key_record(self, key: str, record: KeyRecord, payment_id: str | None) -> None:
        self._sql.execute(
            "INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?)",
            (key, record.request, payment_id, record.refusal, record.is_cancelled),
        )

    def _set_status(self, payment: Payment, at: datetime) -> None:
        self._sql.execute("UPDATE payments SET status = ? WHERE id = ?", (payment.status, payment.id))
        self._add_webhook(payment, at)

    def _add_webhook(self, payment: Payment, at: datetime) -> None:
        """Write the webhook of the payment's new status."""
        if self._webhook_delay is None:
            return
        delivery = payment.behaviour.webhooks
        is_held = delivery in {WebhookDelivery.REVERSED, WebhookDelivery.LATE}
        due_at = (at + self._webhook_delay if is_held else at).timestamp()
        (pending,) = self._sql.execute("SELECT count(*) FROM webhooks WHERE payment_id = ?", (payment.id,)).fetchone()
        if delivery is WebhookDelivery.REVERSED:
            self._sql.execute("UPDATE webhooks SET due_at = ? WHERE payment_id = ?", (due_at, payment.id))
        self._sql.execute(
            "INSERT INTO webhooks (id, payment_id, body, deliveries, due_at, turn) VALUES (?, ?, ?, ?, ?, ?)",
            (
                webhook_event_id(payment),
                payment.id,
                webhook_event_body(payment, at),
                2 if delivery is WebhookDelivery.TWICE else 1,
                due_at,
                -pending if delivery is WebhookDelivery.REVERSED else pending,
            ),
        )
        self._announce()
