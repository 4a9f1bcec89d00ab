import json
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openapi.acquirer import Brand, Code
from sandbox.behaviours import Step
from sandbox.books import Books, Webhook
from sandbox.cards import BEHAVIOURS_BY_NAME, Card
from sandbox.payments import AuthorizationOrder, Payment, Refusal
from tests.full_disk import full_disk

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATE = timedelta(seconds=3)
KEYS = st.sampled_from(["a", "b", "c"])
BEHAVIOUR_NAMES = ("approve", "decline-do-not-honor", "capture-refused", "refund-refused")


def card(behaviour: str) -> Card:
    return Card(f"tok_{behaviour}", Brand.visa, "4242", BEHAVIOURS_BY_NAME[behaviour])


def order(behaviour: str = "approve", amount: str = "10.00") -> AuthorizationOrder:
    return AuthorizationOrder(f"tok_{behaviour}", amount, "RUB", "")


class BooksMachine(RuleBasedStateMachine):
    """All operations in any order, with restarts. A repeated request must have the same result."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.requests: dict[str, str] = {}  # by key
        self.results: dict[str, str | Code] = {}  # a payment's id, or the code of a refusal
        self.cancelled_keys: set[str] = set()
        self.statuses: dict[str, list[str]] = {}  # by payment
        self.open()

    def open(self) -> None:
        self.stack = ExitStack()
        self.books = self.stack.enter_context(Books.open(Path(self.folder.name) / "books", LATE))

    def teardown(self) -> None:
        self.stack.close()
        self.folder.cleanup()

    @rule()
    def restart(self) -> None:
        self.stack.close()
        self.open()

    @rule(behaviour=st.sampled_from(BEHAVIOUR_NAMES), amount=st.sampled_from(["1", "2.00"]), key=KEYS)
    def authorize(self, behaviour: str, amount: str, key: str) -> None:
        wanted = order(behaviour, amount)
        self.books.save_card(card(behaviour))
        result = self._request(key, wanted.request, lambda: self.books.authorize(wanted, key, AT))
        assert key not in self.cancelled_keys or result in {Code.key_cancelled, Code.key_reused}

    @precondition(lambda self: self.statuses)
    @rule(step=st.sampled_from([Step.CAPTURE, Step.VOID, Step.REFUND]), key=KEYS | st.just("d"), data=st.data())
    def change(self, step: Step, key: str, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.statuses)))
        self._request(key, f"{step} {id_}", lambda: self.books.change(step, id_, key, AT))

    @rule(key=KEYS)
    def cancel(self, key: str) -> None:
        before = self.books.authorized_by(key)
        try:
            payment = self.books.cancel(key, AT)
        except Refusal as refusal:
            code = refusal.code
        else:
            self.cancelled_keys.add(key)
            self._record_status(payment)
            assert payment is None or payment.status in {"VOIDED", "DECLINED"}
            return
        assert code is (Code.key_reused if before is None else Code.wrong_status)
        assert before is None or before.captured == before.amount
        assert self.books.authorized_by(key) == before

    def _request(self, key: str, request: str, send: Callable[[], Payment]) -> str | Code:
        """Send the request, assert that a repeated request has its first result, and return the result."""
        is_reused = self.requests.get(key, request) != request
        try:
            payment = send()
        except Refusal as refusal:
            result: str | Code = refusal.code
        else:
            result = payment.id
            self._record_status(payment)
        assert (result is Code.key_reused) == is_reused
        if result not in {Code.key_reused, Code.key_cancelled}:
            self.requests[key] = request
            assert self.results.setdefault(key, result) == result
        return result

    def _record_status(self, payment: Payment | None) -> None:
        """Record the payment's status if it changed."""
        if payment:
            statuses = self.statuses.setdefault(payment.id, [])
            if statuses[-1:] != [payment.status]:
                statuses.append(payment.status)

    @invariant()
    def each_change_has_one_webhook(self) -> None:
        due = self.books.due(AT, 1000)
        statuses: dict[str, list[str]] = {}
        for webhook in due:
            event = json.loads(webhook.body)
            assert event["id"] == webhook.id
            statuses.setdefault(webhook.payment_id, []).append(event["payment"]["status"])
        assert statuses == self.statuses
        assert len({webhook.id for webhook in due}) == len(due)

    @invariant()
    def payments_have_their_last_status(self) -> None:
        listed = self.books.payments("", 1000)
        assert {payment.id: payment.status for payment in listed} == {
            id_: statuses[-1] for id_, statuses in self.statuses.items()
        }
        assert [payment.id for payment in listed] == sorted(payment.id for payment in listed)


TestBooksMachine = BooksMachine.TestCase
TestBooksMachine.settings = settings(stateful_step_count=25)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "books"


class TestBooks:
    def test_file_that_is_open_cannot_be_opened_again(self, file: Path) -> None:
        with Books.open(file), pytest.raises(sqlite3.OperationalError, match="locked"), Books.open(file):
            pass

    def test_files_are_readable_by_their_owner_only(self, file: Path) -> None:
        with Books.open(file):
            assert {each.stat().st_mode & 0o777 for each in file.parent.iterdir()} == {0o600}

    def test_token_depends_on_card_and_books(self, file: Path, tmp_path: Path) -> None:
        with Books.open(file) as books:
            token = books.token("4242424242424242", (2030, 1))
            assert token != books.token("4242424242424242", (2030, 2))
            assert token != books.token("4000000000000002", (2030, 1))
        with Books.open(file) as again, Books.open(tmp_path / "others") as others:
            assert token == again.token("4242424242424242", (2030, 1))
            assert token != others.token("4242424242424242", (2030, 1))

    def test_payment_ids_differ_between_books(self, tmp_path: Path) -> None:
        ids = set()
        for name in ("one", "two"):
            with Books.open(tmp_path / name) as books:
                books.save_card(card("approve"))
                ids.add(books.authorize(order(), "key", AT).id)
        assert len(ids) == 2

    def test_change_is_rolled_back_if_its_webhook_fails(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Books.open(file, LATE) as books:
            books.save_card(card("approve"))
            payment = books.authorize(order(), "key", AT)
            with monkeypatch.context() as patch:
                patch.setattr("sandbox.books.webhook_event_body", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    books.change(Step.CAPTURE, payment.id, "capture", AT)
            assert books.payment(payment.id) == payment
            assert books.change(Step.CAPTURE, payment.id, "capture", AT).status == "CAPTURED"

    def test_key_of_a_capture_cannot_be_cancelled(self, file: Path) -> None:
        with Books.open(file) as books:
            books.save_card(card("approve"))
            payment = books.authorize(order(), "key", AT)
            books.change(Step.CAPTURE, payment.id, "capture", AT)
            with pytest.raises(Refusal) as refusal:
                books.cancel("capture", AT)
            assert refusal.value.code is Code.key_reused


class TestWebhooks:
    def refund_payment(self, books: Books, behaviour: str) -> str:
        """Authorize, capture and refund a payment, one second apart."""
        books.save_card(card(behaviour))
        payment = books.authorize(order(behaviour), "a", AT)
        books.change(Step.CAPTURE, payment.id, "c", AT + timedelta(seconds=1))
        books.change(Step.REFUND, payment.id, "r", AT + timedelta(seconds=2))
        return payment.id

    def due(self, books: Books, seconds: float) -> list[str]:
        due = books.due(AT + timedelta(seconds=seconds), 10)
        return [webhook.id.rpartition("_")[2] for webhook in due]

    def first(self, books: Books, seconds: float = 10) -> Webhook:
        return books.due(AT + timedelta(seconds=seconds), 1)[0]

    def test_webhooks_are_due_at_once(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.refund_payment(books, "approve")
            assert self.due(books, 1) == ["authorized", "captured"]
            assert self.due(books, 2) == ["authorized", "captured", "refunded"]
            assert books.next_due() == AT.timestamp()

    def test_late_webhooks_are_delayed(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.refund_payment(books, "webhooks-late")
            assert self.due(books, 2.9) == []
            assert self.due(books, 4) == ["authorized", "captured"]
            assert books.next_due() == (AT + LATE).timestamp()

    def test_reversed_webhooks_are_due_newest_first(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.refund_payment(books, "webhooks-reversed")
            assert self.due(books, 4.9) == []
            assert self.due(books, 5) == ["refunded", "captured", "authorized"]

    def test_delivered_webhook_is_deleted(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.refund_payment(books, "approve")
            books.record_delivery(self.first(books))
            assert self.due(books, 10) == ["captured", "refunded"]

    def test_doubled_webhook_is_delivered_twice(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.refund_payment(books, "webhooks-twice")
            first = self.first(books)
            books.record_delivery(first)
            assert self.first(books) == first
            books.record_delivery(first)
            assert self.first(books) != first

    def test_failed_webhook_is_scheduled_again(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.refund_payment(books, "approve")
            books.record_failure(self.first(books), AT + timedelta(seconds=20))
            assert self.due(books, 10) == ["captured", "refunded"]
            assert self.due(books, 20) == ["captured", "refunded", "authorized"]
            assert books.due(AT + timedelta(seconds=20), 10)[2].failures == 1

    def test_no_webhooks_are_stored_while_they_are_disabled(self, file: Path) -> None:
        with Books.open(file) as books:
            self.refund_payment(books, "approve")
            assert books.next_due() is None

    @pytest.mark.parametrize("spare_bytes", range(0, 20_000, 1_500))
    async def test_books_work_again_when_the_disk_has_space(self, file: Path, spare_bytes: int) -> None:
        """On a full disk, a statement or a COMMIT fails. The remaining space determines which of them fails first."""
        with Books.open(file, LATE) as books:
            books.save_card(card("approve"))
            size = file.with_name("books-wal").stat().st_size
            with full_disk(size + spare_bytes):
                failures = 0
                for key in range(10):
                    try:
                        books.authorize(order(), f"key{key}", AT)
                    except sqlite3.Error:
                        failures += 1
                assert failures
                with pytest.raises(sqlite3.Error):
                    await books.check_writable()
            stored = {books.authorize(order(), f"key{key}", AT).id for key in range(10)}
            assert len(stored) == 10
            assert {payment.id for payment in books.payments("", 100)} == stored
