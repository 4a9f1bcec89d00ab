"""The acquirer's books: all SQL. SQLite, since an acquirer forgets nothing when it is killed."""

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from openapi.acquirer import Brand, Code, DeclineCode, PaymentStatus
from sandbox import payments
from sandbox.behaviours import Delivery, Step
from sandbox.cards import BEHAVIOURS, Card
from sandbox.messages import event_body, event_id
from sandbox.payments import Order, Payment, Refusal, Use

# The log is not synced at each commit: a killed process loses nothing by that, a power cut perhaps the last moments.
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


@dataclass(frozen=True, slots=True)
class Webhook:
    """An event that the merchant has not been told, or not often enough.

    Attributes:
        id: of the event, the same on every delivery.
        payment_id: what it is about.
        body: what is sent, and signed.
        failures: how often it was tried in vain.
    """

    id: str
    payment_id: str
    body: str
    failures: int


class Books:
    """What the acquirer knows. One process owns them; a method is a transaction, and blocks for well below a
    millisecond. An event is written with the change that it tells of.
    """

    def __init__(
        self, database: sqlite3.Connection, webhook_delay: timedelta | None, announce: Callable[[], None]
    ) -> None:
        """Args:
        database: opened by `open`.
        webhook_delay: how late a late webhook is; None if nobody is to be told anything.
        announce: says that there is a webhook more; must not block.
        """
        self._sql = database
        self._webhook_delay = webhook_delay
        self._announce = announce
        id_, secret = database.execute("SELECT id, secret FROM books").fetchone()
        self._id: str = id_
        self._secret: bytes = secret

    @classmethod
    @contextmanager
    def open(
        cls, file: Path, webhook_delay: timedelta | None = None, announce: Callable[[], None] = lambda: None
    ) -> Iterator[Self]:
        """The books in the file, made if there are none.

        Raises:
            sqlite3.OperationalError: another process has them open, or the file cannot be had.
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

    def token(self, number: str, expiry: tuple[int, int]) -> str:
        """The token of a number and its expiry in these books. Nothing leads back from it without the books' secret."""
        of = f"{number} {expiry}".encode()
        return "tok_" + hmac.digest(self._secret, of, hashlib.sha256).hex()[:48]

    def remember(self, card: Card) -> None:
        """Keeps the card for its token."""
        self._sql.execute(
            """
            INSERT INTO cards VALUES (?, ?, ?, ?)
            ON CONFLICT (token) DO UPDATE SET behaviour = excluded.behaviour
            """,
            (card.token, card.brand, card.last_four, card.behaviour.name),
        )

    def card(self, token: str) -> Card:
        """The card of a token.

        Raises:
            Refusal: UNKNOWN_TOKEN.
        """
        row = self._sql.execute("SELECT * FROM cards WHERE token = ?", (token,)).fetchone()
        if row is None:
            raise Refusal(Code.unknown_token)
        return Card(row["token"], Brand(row["brand"]), row["last_four"], BEHAVIOURS[row["behaviour"]])

    def attempt(self, key: str) -> int:
        """Counts the requests with the key; this one is included."""
        (count,) = self._sql.execute(
            "INSERT INTO attempts VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET count = count + 1 RETURNING count",
            (key,),
        ).fetchone()
        return int(count)

    def authorize(self, order: Order, key: str, at: datetime) -> Payment:
        """A new payment, or the one that the key has authorized already.

        Raises:
            Refusal: UNKNOWN_TOKEN, KEY_REUSED, KEY_CANCELLED.
        """
        with self._transaction():
            if use := self._use(key):
                return use.replay(order.request, self.authorized_by(key))
            card = self.card(order.token)
            (last,) = self._sql.execute("SELECT coalesce(max(rowid), 0) FROM payments").fetchone()
            payment = payments.authorized(f"pay_{self._id}_{last + 1:012}", order, key, card.behaviour, at)
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
            self._set_use(key, Use(order.request), payment.id)
            self._tell(payment, at)
            return payment

    def change(self, step: Step, payment_id: str, key: str, at: datetime) -> Payment:
        """The payment after the step, or as it is now if the key has changed it already. A refusal, too, is the key's
        for ever.

        Raises:
            Refusal: NOT_FOUND, KEY_REUSED, KEY_CANCELLED, WRONG_STATUS, REFUSED.
        """
        request = payments.change_request(step, payment_id)
        with self._transaction():
            payment = self.payment(payment_id)
            if use := self._use(key):
                return use.replay(request, payment)
            try:
                after = payments.changed(payment, step)
            except Refusal as refusal:
                self._set_use(key, Use(request, refusal.code), payment_id)
                raise
            self._set_use(key, Use(request), payment_id)
            self._set_status(after, at)
            return after

    def cancel(self, key: str, at: datetime) -> Payment | None:
        """Bars the key for ever, and voids what it has authorized.

        Raises:
            Refusal: WRONG_STATUS, what it has authorized is captured; KEY_REUSED, it never was to authorize.
        """
        with self._transaction():
            payment = self.authorized_by(key)
            if payment is None:
                if (use := self._use(key)) and use.request:
                    raise Refusal(Code.key_reused)
                self._set_use(key, Use(None, is_cancelled=True), None)
                return None
            after = payments.cancelled(payment)
            self._sql.execute("UPDATE keys SET is_cancelled = 1 WHERE key = ?", (key,))
            if after != payment:
                self._set_status(after, at)
            return after

    def payment(self, payment_id: str) -> Payment:
        """The payment as it is now.

        Raises:
            Refusal: NOT_FOUND.
        """
        found = self._payments("WHERE id = ?", payment_id)
        if not found:
            raise Refusal(Code.not_found)
        return found[0]

    def authorized_by(self, key: str) -> Payment | None:
        """The payment that the key has authorized, or had declined."""
        found = self._payments("WHERE idempotency_key = ?", key)
        return found[0] if found else None

    def payments(self, after: str, limit: int) -> Sequence[Payment]:
        """Payments in the order in which they were made, those after an id only."""
        return self._payments("WHERE id > ? ORDER BY id LIMIT ?", after, limit)

    def due(self, now: datetime, limit: int) -> Sequence[Webhook]:
        """The webhooks whose time has come, in the order in which they should go."""
        rows = self._sql.execute(
            "SELECT id, payment_id, body, failures FROM webhooks WHERE due_at <= ? ORDER BY due_at, turn LIMIT ?",
            (now.timestamp(), limit),
        )
        return [Webhook(*row) for row in rows]

    def next_due(self) -> float | None:
        """When the next webhook's time comes, in seconds since the epoch; None if there is none."""
        (at,) = self._sql.execute("SELECT min(due_at) FROM webhooks").fetchone()
        return None if at is None else float(at)

    def delivered(self, webhook: Webhook) -> None:
        """Forgets the webhook, if it need not be delivered once more."""
        with self._transaction():
            self._sql.execute("UPDATE webhooks SET deliveries = deliveries - 1 WHERE id = ?", (webhook.id,))
            self._sql.execute("DELETE FROM webhooks WHERE id = ? AND deliveries = 0", (webhook.id,))

    def failed(self, webhook: Webhook, again_at: datetime) -> None:
        """Keeps the webhook for another time."""
        self._sql.execute(
            "UPDATE webhooks SET failures = failures + 1, due_at = ? WHERE id = ?",
            (again_at.timestamp(), webhook.id),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing. A refusal is an outcome like any other: what was written with it stays."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
        except Refusal:
            self._sql.execute("COMMIT")
            raise
        except BaseException:
            self._sql.execute("ROLLBACK")
            raise
        self._sql.execute("COMMIT")

    def _payments(self, where: str, *values: object) -> Sequence[Payment]:
        rows = self._sql.execute(f"SELECT * FROM payments JOIN cards USING (token) {where}", values)  # noqa: S608  ours
        return [
            Payment(
                id=row["id"],
                idempotency_key=row["idempotency_key"],
                behaviour=BEHAVIOURS[row["behaviour"]],
                status=PaymentStatus(row["status"]),
                decline_code=DeclineCode(row["decline_code"]) if row["decline_code"] else None,
                amount=row["amount"],
                currency=row["currency"],
                reference=row["reference"],
                created_at=datetime.fromisoformat(row["created_at"]),
            )
            for row in rows
        ]

    def _use(self, key: str) -> Use | None:
        row = self._sql.execute("SELECT request, refusal, is_cancelled FROM keys WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        return Use(row["request"], Code(row["refusal"]) if row["refusal"] else None, bool(row["is_cancelled"]))

    def _set_use(self, key: str, use: Use, payment_id: str | None) -> None:
        self._sql.execute(
            "INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?)",
            (key, use.request, payment_id, use.refusal, use.is_cancelled),
        )

    def _set_status(self, payment: Payment, at: datetime) -> None:
        self._sql.execute("UPDATE payments SET status = ? WHERE id = ?", (payment.status, payment.id))
        self._tell(payment, at)

    def _tell(self, payment: Payment, at: datetime) -> None:
        """Writes the event of what the payment has just become."""
        if self._webhook_delay is None:
            return
        delivery = payment.behaviour.webhooks
        is_held = delivery in {Delivery.REVERSED, Delivery.LATE}
        due_at = (at + self._webhook_delay if is_held else at).timestamp()
        (waiting,) = self._sql.execute("SELECT count(*) FROM webhooks WHERE payment_id = ?", (payment.id,)).fetchone()
        if delivery is Delivery.REVERSED:
            self._sql.execute("UPDATE webhooks SET due_at = ? WHERE payment_id = ?", (due_at, payment.id))
        self._sql.execute(
            "INSERT INTO webhooks (id, payment_id, body, deliveries, due_at, turn) VALUES (?, ?, ?, ?, ?, ?)",
            (
                event_id(payment),
                payment.id,
                event_body(payment, at),
                2 if delivery is Delivery.TWICE else 1,
                due_at,
                -waiting if delivery is Delivery.REVERSED else waiting,
            ),
        )
        self._announce()
