from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openapi.acquirer import Code, PaymentStatus
from sandbox import payments
from sandbox.behaviours import Behaviour, Step
from sandbox.cards import APPROVE, BEHAVIOURS
from sandbox.payments import Order, Payment, Refusal, Use

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ORDER = Order("tok_1", "10.00", "RUB", "a top-up")

CHANGES = st.lists(st.sampled_from([Step.CAPTURE, Step.VOID, Step.REFUND, None]), max_size=8)
"""Steps; None is the cancellation of the key."""


def payment(behaviour: Behaviour = APPROVE) -> Payment:
    return payments.authorized("pay_1", ORDER, "key", behaviour, AT)


def after(paid: Payment, step: Step | None) -> Payment:
    return payments.cancelled(paid) if step is None else payments.changed(paid, step)


class TestLife:
    @given(st.sampled_from(list(BEHAVIOURS.values())), CHANGES)
    def test_whatever_is_asked_the_sums_agree_with_the_status(
        self, behaviour: Behaviour, changes: list[Step | None]
    ) -> None:
        now = payment(behaviour)
        seen = [now.status]
        for step in changes:
            before = now
            with suppress(Refusal):
                now = after(now, step)
            assert Decimal(before.captured) <= Decimal(now.captured) <= Decimal(now.amount)
            assert Decimal(before.refunded) <= Decimal(now.refunded) <= Decimal(now.captured)
            if now != before:
                seen.append(now.status)
        assert len(set(seen)) == len(seen), "no status is left and entered again"
        assert (now.captured == now.amount) == (PaymentStatus.captured in seen)
        assert (now.refunded == now.amount) == (PaymentStatus.refunded in seen)
        assert (now.decline_code is not None) == (now.status is PaymentStatus.declined)

    @pytest.mark.parametrize(
        ("steps", "status"),
        [
            ([], PaymentStatus.authorized),
            ([Step.CAPTURE], PaymentStatus.captured),
            ([Step.VOID], PaymentStatus.voided),
            ([None], PaymentStatus.voided),
            ([None, None], PaymentStatus.voided),
            ([Step.CAPTURE, Step.REFUND], PaymentStatus.refunded),
        ],
    )
    def test_goes_where_the_contract_says(self, steps: list[Step | None], status: PaymentStatus) -> None:
        now = payment()
        for step in steps:
            now = after(now, step)
        assert now.status is status

    @pytest.mark.parametrize(
        ("steps", "refused"),
        [
            ([], Step.REFUND),
            ([Step.CAPTURE], Step.CAPTURE),
            ([Step.CAPTURE], Step.VOID),
            ([Step.CAPTURE], None),
            ([Step.VOID], Step.CAPTURE),
            ([Step.CAPTURE, Step.REFUND], Step.REFUND),
            ([Step.CAPTURE, Step.REFUND], None),
        ],
    )
    def test_is_refused_what_it_is_past(self, steps: list[Step], refused: Step | None) -> None:
        now = payment()
        for step in steps:
            now = after(now, step)
        with pytest.raises(Refusal) as refusal:
            after(now, refused)
        assert (refusal.value.code, refusal.value.payment) == (Code.wrong_status, now)

    def test_a_declined_one_stays_declined_and_its_key_may_be_cancelled(self) -> None:
        declined = payment(BEHAVIOURS["decline-stolen-card"])
        assert payments.cancelled(declined) == declined

    def test_what_the_card_refuses_is_refused_only_where_it_would_be_possible(self) -> None:
        held = payment(BEHAVIOURS["capture-refused"])
        with pytest.raises(Refusal) as refusal:
            payments.changed(held, Step.CAPTURE)
        assert refusal.value.code is Code.refused
        with pytest.raises(Refusal) as refusal:
            payments.changed(payments.changed(held, Step.VOID), Step.CAPTURE)
        assert refusal.value.code is Code.wrong_status


class TestKey:
    def test_the_same_request_is_the_same_however_the_amount_is_written(self) -> None:
        assert Order("t", "10.0", "RUB", "r").request == Order("t", "10.0000", "RUB", "r").request

    @pytest.mark.parametrize(
        "other",
        [
            Order("tok_2", "10.00", "RUB", "a top-up"),
            Order("tok_1", "10.01", "RUB", "a top-up"),
            Order("tok_1", "100", "RUB", "a top-up"),
            Order("tok_1", "10.00", "USD", "a top-up"),
            Order("tok_1", "10.00", "RUB", "another"),
        ],
    )
    def test_another_request_is_another(self, other: Order) -> None:
        with pytest.raises(Refusal) as refusal:
            Use(ORDER.request).replay(other.request, payment())
        assert refusal.value.code is Code.key_reused

    def test_a_replay_sees_the_payment_as_it_is_now(self) -> None:
        now = payments.changed(payment(), Step.CAPTURE)
        assert Use(ORDER.request).replay(ORDER.request, now) is now

    def test_a_refusal_is_replayed_whatever_became_of_the_payment(self) -> None:
        request = payments.change_request(Step.REFUND, "pay_1")
        captured = payments.changed(payment(), Step.CAPTURE)
        with pytest.raises(Refusal) as refusal:
            Use(request, Code.wrong_status).replay(request, captured)
        assert (refusal.value.code, refusal.value.payment) == (Code.wrong_status, captured)

    @pytest.mark.parametrize("use", [Use(ORDER.request, is_cancelled=True), Use(None, is_cancelled=True)])
    def test_a_cancelled_one_authorizes_nothing(self, use: Use) -> None:
        with pytest.raises(Refusal) as refusal:
            use.replay(ORDER.request, payment() if use.request else None)
        assert refusal.value.code is Code.key_cancelled
