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
from sandbox.cards import BEHAVIOURS, Card
from sandbox.payments import Order, Payment, Refusal

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATE = timedelta(seconds=3)
KEYS = st.sampled_from(["a", "b", "c"])
SOME = ("approve", "decline-do-not-honor", "capture-refused", "refund-refused")


def card(behaviour: str) -> Card:
    return Card(f"tok_{behaviour}", Brand.visa, "4242", BEHAVIOURS[behaviour])


def order(behaviour: str = "approve", amount: str = "10.00") -> Order:
    return Order(f"tok_{behaviour}", amount, "RUB", "")


class History(RuleBasedStateMachine):
    """Everything that can be asked, in any order, between restarts: what was answered once holds for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.requests: dict[str, str] = {}  # by key
        self.answers: dict[str, str | Code] = {}  # a payment's id, or the code of a refusal
        self.barred: set[str] = set()
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

    @rule(behaviour=st.sampled_from(SOME), amount=st.sampled_from(["1", "2.00"]), key=KEYS)
    def authorize(self, behaviour: str, amount: str, key: str) -> None:
        wanted = order(behaviour, amount)
        self.books.remember(card(behaviour))
        answer = self._asked(key, wanted.request, lambda: self.books.authorize(wanted, key, AT))
        assert key not in self.barred or answer in {Code.key_cancelled, Code.key_reused}

    @precondition(lambda self: self.statuses)
    @rule(step=st.sampled_from([Step.CAPTURE, Step.VOID, Step.REFUND]), key=KEYS | st.just("d"), data=st.data())
    def change(self, step: Step, key: str, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.statuses)))
        self._asked(key, f"{step} {id_}", lambda: self.books.change(step, id_, key, AT))

    @rule(key=KEYS)
    def cancel(self, key: str) -> None:
        before = self.books.authorized_by(key)
        try:
            payment = self.books.cancel(key, AT)
        except Refusal as refusal:
            code = refusal.code
        else:
            self.barred.add(key)
            self._note(payment)
            assert payment is None or payment.status in {"VOIDED", "DECLINED"}
            return
        assert code is (Code.key_reused if before is None else Code.wrong_status)
        assert before is None or before.captured == before.amount
        assert self.books.authorized_by(key) == before

    def _asked(self, key: str, request: str, ask: Callable[[], Payment]) -> str | Code:
        """What the request was answered, which must be what it was answered at first."""
        is_reused = self.requests.get(key, request) != request
        try:
            payment = ask()
        except Refusal as refusal:
            answer: str | Code = refusal.code
        else:
            answer = payment.id
            self._note(payment)
        assert (answer is Code.key_reused) == is_reused
        if answer not in {Code.key_reused, Code.key_cancelled}:
            self.requests[key] = request
            assert self.answers.setdefault(key, answer) == answer
        return answer

    def _note(self, payment: Payment | None) -> None:
        """Another status, if it is another one."""
        if payment:
            statuses = self.statuses.setdefault(payment.id, [])
            if statuses[-1:] != [payment.status]:
                statuses.append(payment.status)

    @invariant()
    def every_change_is_told_once_and_nothing_else_is(self) -> None:
        due = self.books.due(AT, 1000)
        told: dict[str, list[str]] = {}
        for webhook in due:
            event = json.loads(webhook.body)
            assert event["id"] == webhook.id
            told.setdefault(webhook.payment_id, []).append(event["payment"]["status"])
        assert told == self.statuses
        assert len({webhook.id for webhook in due}) == len(due)

    @invariant()
    def a_payment_is_what_was_last_said_of_it(self) -> None:
        listed = self.books.payments("", 1000)
        assert {payment.id: payment.status for payment in listed} == {
            id_: statuses[-1] for id_, statuses in self.statuses.items()
        }
        assert [payment.id for payment in listed] == sorted(payment.id for payment in listed)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "books"


class TestBooks:
    def test_belong_to_one_process_at_a_time(self, file: Path) -> None:
        with Books.open(file), pytest.raises(sqlite3.OperationalError, match="locked"), Books.open(file):
            pass

    def test_nobody_but_their_owner_may_read_them(self, file: Path) -> None:
        with Books.open(file):
            assert {each.stat().st_mode & 0o777 for each in file.parent.iterdir()} == {0o600}

    def test_keep_their_secret_and_so_the_tokens(self, file: Path, tmp_path: Path) -> None:
        with Books.open(file) as books:
            token = books.token("4242424242424242", (2030, 1))
            assert token != books.token("4242424242424242", (2030, 2))
            assert token != books.token("4000000000000002", (2030, 1))
        with Books.open(file) as again, Books.open(tmp_path / "others") as others:
            assert token == again.token("4242424242424242", (2030, 1))
            assert token != others.token("4242424242424242", (2030, 1))

    def test_other_books_give_no_id_twice(self, tmp_path: Path) -> None:
        ids = set()
        for name in ("one", "two"):
            with Books.open(tmp_path / name) as books:
                books.remember(card("approve"))
                ids.add(books.authorize(order(), "key", AT).id)
        assert len(ids) == 2

    def test_a_change_that_cannot_be_told_is_not_made(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Books.open(file, LATE) as books:
            books.remember(card("approve"))
            payment = books.authorize(order(), "key", AT)
            with monkeypatch.context() as patch:
                patch.setattr("sandbox.books.event_body", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    books.change(Step.CAPTURE, payment.id, "capture", AT)
            assert books.payment(payment.id) == payment
            assert books.change(Step.CAPTURE, payment.id, "capture", AT).status == "CAPTURED"

    def test_a_key_that_changed_a_payment_cannot_be_cancelled(self, file: Path) -> None:
        with Books.open(file) as books:
            books.remember(card("approve"))
            payment = books.authorize(order(), "key", AT)
            books.change(Step.CAPTURE, payment.id, "capture", AT)
            with pytest.raises(Refusal) as refusal:
                books.cancel("capture", AT)
            assert refusal.value.code is Code.key_reused


class TestWebhooks:
    def told(self, books: Books, behaviour: str) -> str:
        """A payment that was authorized, captured and refunded, a second after the other."""
        books.remember(card(behaviour))
        payment = books.authorize(order(behaviour), "a", AT)
        books.change(Step.CAPTURE, payment.id, "c", AT + timedelta(seconds=1))
        books.change(Step.REFUND, payment.id, "r", AT + timedelta(seconds=2))
        return payment.id

    def due(self, books: Books, seconds: float) -> list[str]:
        due = books.due(AT + timedelta(seconds=seconds), 10)
        return [webhook.id.rpartition("_")[2] for webhook in due]

    def first(self, books: Books, seconds: float = 10) -> Webhook:
        return books.due(AT + timedelta(seconds=seconds), 1)[0]

    def test_are_due_at_once(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.told(books, "approve")
            assert self.due(books, 1) == ["authorized", "captured"]
            assert self.due(books, 2) == ["authorized", "captured", "refunded"]
            assert books.next_due() == AT.timestamp()

    def test_of_a_late_card_are_each_late(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.told(books, "webhooks-late")
            assert self.due(books, 2.9) == []
            assert self.due(books, 4) == ["authorized", "captured"]
            assert books.next_due() == (AT + LATE).timestamp()

    def test_of_a_reversing_card_wait_for_a_quiet_moment_and_come_the_newest_first(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.told(books, "webhooks-reversed")
            assert self.due(books, 4.9) == []
            assert self.due(books, 5) == ["refunded", "captured", "authorized"]

    def test_are_forgotten_when_delivered(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.told(books, "approve")
            books.delivered(self.first(books))
            assert self.due(books, 10) == ["captured", "refunded"]

    def test_of_a_doubling_card_are_forgotten_when_delivered_twice(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.told(books, "webhooks-twice")
            first = self.first(books)
            books.delivered(first)
            assert self.first(books) == first
            books.delivered(first)
            assert self.first(books) != first

    def test_that_failed_come_again_later(self, file: Path) -> None:
        with Books.open(file, LATE) as books:
            self.told(books, "approve")
            books.failed(self.first(books), AT + timedelta(seconds=20))
            assert self.due(books, 10) == ["captured", "refunded"]
            assert self.due(books, 20) == ["captured", "refunded", "authorized"]
            assert books.due(AT + timedelta(seconds=20), 10)[2].failures == 1

    def test_are_not_kept_where_nobody_listens(self, file: Path) -> None:
        with Books.open(file) as books:
            self.told(books, "approve")
            assert books.next_due() is None
