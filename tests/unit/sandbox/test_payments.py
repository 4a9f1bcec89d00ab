from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openapi.acquirer import Code, PaymentStatus
from sandbox import payments
from sandbox.behaviours import Behaviour, Step
from sandbox.cards import APPROVE, BEHAVIOURS_BY_NAME
from sandbox.payments import AuthorizationOrder, KeyRecord, Payment, Refusal

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ORDER = AuthorizationOrder("tok_1", "10.00", "RUB", "a top-up")

CHANGES = st.lists(st.sampled_from([Step.CAPTURE, Step.VOID, Step.REFUND, None]), max_size=8)
"""Changes of a payment; None is the cancellation of its key."""


def payment(behaviour: Behaviour = APPROVE) -> Payment:
    return payments.authorize_payment("pay_1", ORDER, "key", behaviour, AT)


def after(paid: Payment, step: Step | None) -> Payment:
    return payments.cancel_payment(paid) if step is None else payments.apply_step(paid, step)


class TestLife:
    @given(st.sampled_from(list(BEHAVIOURS_BY_NAME.values())), CHANGES)
    def test_amounts_agree_with_the_status_after_any_steps(
        self, behaviour: Behaviour, changes: list[Step | None]
    ) -> None:
        now = payment(behaviour)
        statuses = [now.status]
        for step in changes:
            before = now
            with suppress(Refusal):
                now = after(now, step)
            assert Decimal(before.captured) <= Decimal(now.captured) <= Decimal(now.amount)
            assert Decimal(before.refunded) <= Decimal(now.refunded) <= Decimal(now.captured)
            if now != before:
                statuses.append(now.status)
        assert len(set(statuses)) == len(statuses), "a payment returned to an earlier status"
        assert (now.captured == now.amount) == (PaymentStatus.captured in statuses)
        assert (now.refunded == now.amount) == (PaymentStatus.refunded in statuses)
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
    def test_steps_lead_to_the_status_of_the_contract(self, steps: list[Step | None], status: PaymentStatus) -> None:
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
    def test_impossible_step_is_refused(self, steps: list[Step], refused: Step | None) -> None:
        now = payment()
        for step in steps:
            now = after(now, step)
        with pytest.raises(Refusal) as refusal:
            after(now, refused)
        assert (refusal.value.code, refusal.value.payment) == (Code.wrong_status, now)

    def test_key_of_a_declined_payment_can_be_cancelled(self) -> None:
        declined = payment(BEHAVIOURS_BY_NAME["decline-stolen-card"])
        assert payments.cancel_payment(declined) == declined

    def test_card_refusal_applies_only_in_a_status_that_allows_the_step(self) -> None:
        held = payment(BEHAVIOURS_BY_NAME["capture-refused"])
        with pytest.raises(Refusal) as refusal:
            payments.apply_step(held, Step.CAPTURE)
        assert refusal.value.code is Code.refused
        with pytest.raises(Refusal) as refusal:
            payments.apply_step(payments.apply_step(held, Step.VOID), Step.CAPTURE)
        assert refusal.value.code is Code.wrong_status


class TestKey:
    def test_fingerprint_ignores_trailing_zeros(self) -> None:
        assert (
            AuthorizationOrder("t", "10.0", "RUB", "r").request
            == AuthorizationOrder("t", "10.0000", "RUB", "r").request
        )

    @pytest.mark.parametrize(
        "other",
        [
            AuthorizationOrder("tok_2", "10.00", "RUB", "a top-up"),
            AuthorizationOrder("tok_1", "10.01", "RUB", "a top-up"),
            AuthorizationOrder("tok_1", "100", "RUB", "a top-up"),
            AuthorizationOrder("tok_1", "10.00", "USD", "a top-up"),
            AuthorizationOrder("tok_1", "10.00", "RUB", "another"),
        ],
    )
    def test_key_with_another_request_is_refused(self, other: AuthorizationOrder) -> None:
        with pytest.raises(Refusal) as refusal:
            KeyRecord(ORDER.request).replay(other.request, payment())
        assert refusal.value.code is Code.key_reused

    def test_replay_returns_the_current_payment(self) -> None:
        now = payments.apply_step(payment(), Step.CAPTURE)
        assert KeyRecord(ORDER.request).replay(ORDER.request, now) is now

    def test_refusal_is_replayed_with_the_current_payment(self) -> None:
        request = payments.request_fingerprint(Step.REFUND, "pay_1")
        captured = payments.apply_step(payment(), Step.CAPTURE)
        with pytest.raises(Refusal) as refusal:
            KeyRecord(request, Code.wrong_status).replay(request, captured)
        assert (refusal.value.code, refusal.value.payment) == (Code.wrong_status, captured)

    @pytest.mark.parametrize(
        "record", [KeyRecord(ORDER.request, is_cancelled=True), KeyRecord(None, is_cancelled=True)]
    )
    def test_cancelled_key_authorizes_nothing(self, record: KeyRecord) -> None:
        with pytest.raises(Refusal) as refusal:
            record.replay(ORDER.request, payment() if record.request else None)
        assert refusal.value.code is Code.key_cancelled
