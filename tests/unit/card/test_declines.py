"""Rules of the decline limits."""

import uuid
from dataclasses import replace
from ipaddress import ip_network
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgraphs.card.service.domain.cards import CardDetails
from subgraphs.card.service.domain.declines import (
    AttemptOutcome,
    AttemptState,
    Blocked,
    DeclineLimits,
    LimitKind,
    NewAttempt,
    NoRoomYet,
    Room,
    StoredAttempt,
    Verdict,
    attempt_outcome,
    card_digest,
    card_fingerprint,
    find_blocks,
    judge,
)
from subgraphs.card.service.domain.top_up import IdempotencyKey, Status

LIMITS = DeclineLimits(
    per_customer=2, per_address=3, per_shared_address=5, per_card=2, window_seconds=100, attempt_seconds=10
)
CUSTOMER, ADDRESS, CARD = "issuer|alice", "8.8.8.8", b"card"
NEW = NewAttempt(UUID(int=1), IdempotencyKey(CUSTOMER, "new key"), ADDRESS, CARD)


def attempt(
    state: AttemptState = AttemptState.DECLINED,
    age: float = 0.0,
    *,
    customer: str | None = CUSTOMER,
    address: str | None = None,
    card: bytes | None = None,
    key: str = "earlier key",
) -> StoredAttempt:
    columns = {LimitKind.CUSTOMER: customer, LimitKind.ADDRESS: address, LimitKind.CARD: card}
    subjects = {kind: subject for kind, subject in columns.items() if subject is not None}
    return StoredAttempt(uuid.uuid4(), subjects, key, state, age)


class TestVerdict:
    def test_attempt_has_room_below_all_limits(self) -> None:
        stored = [attempt(), *(attempt(customer=None, address=ADDRESS) for _ in range(2)), attempt(customer=None)]
        assert judge(NEW, stored, LIMITS) == Room()

    @pytest.mark.parametrize(
        ("kind", "stored"),
        [
            (LimitKind.CUSTOMER, [attempt(age=30), attempt(age=10)]),
            (LimitKind.ADDRESS, [attempt(age=age, customer=None, address=ADDRESS) for age in (30, 20, 10)]),
            (LimitKind.CARD, [attempt(age=age, customer=None, card=CARD) for age in (30, 10)]),
        ],
    )
    def test_limit_blocks_until_its_oldest_decline_leaves_the_window(
        self, kind: LimitKind, stored: list[StoredAttempt]
    ) -> None:
        assert judge(NEW, stored, LIMITS) == Blocked(kind, 70)
        assert judge(NEW, stored[1:], LIMITS) == Room()

    def test_block_of_declines_above_a_lowered_limit_lasts_until_there_is_room(self) -> None:
        stored = [attempt(age=age) for age in (90, 50, 30, 10)]
        assert judge(NEW, stored, LIMITS) == Blocked(LimitKind.CUSTOMER, 70)

    def test_longest_of_several_blocks_decides(self) -> None:
        stored = [attempt(age=60), attempt(age=60), *(attempt(age=20, customer=None, card=CARD) for _ in range(2))]
        assert judge(NEW, stored, LIMITS) == Blocked(LimitKind.CARD, 80)

    @pytest.mark.parametrize("state", [AttemptState.TOKENIZING, AttemptState.AUTHORIZING])
    def test_attempt_in_progress_counts_towards_the_limit(self, state: AttemptState) -> None:
        assert judge(NEW, [attempt(), attempt(state)], LIMITS) == NoRoomYet()

    def test_attempt_of_a_dead_process_stops_counting_after_attempt_seconds(self) -> None:
        assert judge(NEW, [attempt(), attempt(AttemptState.TOKENIZING, 9.9)], LIMITS) == NoRoomYet()
        assert judge(NEW, [attempt(), attempt(AttemptState.TOKENIZING, 10)], LIMITS) == Room()

    def test_attempt_with_an_unknown_authorization_counts_until_the_end_of_the_window(self) -> None:
        assert judge(NEW, [attempt(), attempt(AttemptState.AUTHORIZING, 99)], LIMITS) == NoRoomYet()
        assert judge(NEW, [attempt(), attempt(AttemptState.AUTHORIZING, 100)], LIMITS) == Room()

    def test_second_attempt_with_a_key_waits_for_the_first(self) -> None:
        same_key = attempt(AttemptState.TOKENIZING, key=NEW.key.key)
        assert judge(NEW, [same_key], LIMITS) == NoRoomYet()
        assert judge(NEW, [replace(same_key, state=AttemptState.DECLINED)], LIMITS) == Room()

    def test_caller_without_an_address_has_no_limit_by_address(self) -> None:
        stored = [attempt(customer=None, address=ADDRESS) for _ in range(9)]
        assert judge(replace(NEW, address=None), stored, LIMITS) == Room()


class TestSharedAddress:
    @pytest.mark.parametrize(
        ("address", "maximum"),
        [
            ("8.8.8.8", 3),
            ("2a00:1450::/64", 3),
            ("127.0.0.1", 5),
            ("10.0.0.7", 5),
            ("100.64.1.1", 5),
            ("fd00::/64", 5),
            ("9.9.9.9", 5),
            ("2620:fe:1::/64", 5),
        ],
    )
    def test_address_that_many_customers_share_has_the_larger_limit(self, address: str, maximum: int) -> None:
        networks = (ip_network("9.9.9.0/24"), ip_network("2620:fe::/32"))
        limits = replace(LIMITS, shared_networks=networks)
        assert limits.maximum(LimitKind.ADDRESS, address) == maximum


ATTEMPTS = st.lists(
    st.builds(
        attempt,
        st.sampled_from(AttemptState),
        st.integers(0, 120).map(float),
        customer=st.sampled_from([CUSTOMER, "issuer|bob", None]),
        address=st.sampled_from([ADDRESS, "127.0.0.1", None]),
        card=st.sampled_from([CARD, b"other card", None]),
        key=st.sampled_from([NEW.key.key, "earlier key"]),
    ),
    max_size=14,
)


def expected_verdict(stored: list[StoredAttempt]) -> Verdict:
    """Return the verdict by its definition: search for the first second in which the declines are below the limit."""
    subjects = {LimitKind.CUSTOMER: (CUSTOMER, 2), LimitKind.ADDRESS: (ADDRESS, 3), LimitKind.CARD: (CARD, 2)}
    has_room, blocks = True, {}
    for kind, (subject, maximum) in subjects.items():
        mine = [each for each in stored if kind in each.subjects and each.subjects[kind] == subject]
        for second in range(101):
            declined = [each for each in mine if each.state == "DECLINED" and each.age_seconds + second < 100]
            if len(declined) < maximum:
                break
        if second:
            blocks[kind] = second
        waiting = [each for each in mine if each.state == "TOKENIZING" and each.age_seconds < 10]
        waiting += [each for each in mine if each.state == "AUTHORIZING" and each.age_seconds < 100]
        has_room &= len(declined) + len(waiting) < maximum
        has_room &= kind != "customer" or NEW.key.key not in {each.idempotency_key for each in waiting}
    if blocks:
        longest = max(blocks.values())
        return Blocked(next(kind for kind, second in blocks.items() if second == longest), longest)
    return Room() if has_room else NoRoomYet()


@given(ATTEMPTS)
def test_verdict_matches_the_definition(stored: list[StoredAttempt]) -> None:
    assert judge(NEW, stored, LIMITS) == expected_verdict(stored)


@given(st.lists(st.tuples(st.sampled_from(["start", "decline", "approve", "wait"]), st.integers(0, 60)), max_size=60))
def test_no_window_has_more_declines_than_the_limit(events: list[tuple[str, int]]) -> None:
    """Start and end attempts and let time pass, in any order. No attempt in progress expires."""
    now, waiting, declined = 0, list[int](), list[int]()
    for event, number in events:
        if event == "wait":
            now += number
        elif event == "start":
            stored = [attempt(AttemptState.AUTHORIZING, 0.0) for _ in waiting]
            stored += [attempt(AttemptState.DECLINED, now - at) for at in declined]
            if judge(NEW, stored, LIMITS) == Room():
                waiting.append(now)
        elif waiting:
            waiting.pop(number % len(waiting))
            declined += [now] if event == "decline" else []
    for start in declined:
        assert len([at for at in declined if start <= at < start + 100]) <= 2


class TestBlocks:
    def test_blocks_name_customers_and_addresses_but_no_card(self) -> None:
        shared = {"address": ADDRESS, "card": CARD}
        stored = [
            attempt(age=40, **shared),  # type: ignore[arg-type]
            attempt(age=10, **shared),  # type: ignore[arg-type]
            attempt(age=20, customer="issuer|bob", address=ADDRESS),
            attempt(AttemptState.AUTHORIZING, customer="issuer|bob"),
        ]
        customer, address, card = find_blocks(stored, LIMITS)
        assert (customer.kind, customer.subject, customer.declines, customer.seconds) == ("customer", CUSTOMER, 2, 60)
        assert (address.kind, address.subject, address.declines) == ("address", ADDRESS, 3)
        assert address.customers == (CUSTOMER, "issuer|bob")
        assert (card.kind, card.subject, card.customers) == ("card", None, (CUSTOMER,))
        assert {block.attempt_id for block in (customer, address, card)} == {stored[1].id}

    def test_lifted_declines_block_nothing(self) -> None:
        assert find_blocks([attempt(customer=None) for _ in range(3)], LIMITS) == []


class TestOutcome:
    @pytest.mark.parametrize("after", Status)
    def test_only_a_change_from_created_reveals_the_outcome(self, after: Status) -> None:
        expected = {
            Status.CREATED: None,
            Status.NEEDS_REVIEW: None,
            Status.DECLINED: AttemptOutcome.DECLINED,
        }
        assert attempt_outcome(Status.CREATED, after) is expected.get(after, AttemptOutcome.OTHER)
        assert attempt_outcome(Status.AUTHORIZED, after) is None


class TestDigests:
    CARD = CardDetails("4242424242424242", 12, 2040, "123")

    def test_fingerprint_depends_on_number_and_secret_only(self) -> None:
        first = card_fingerprint(b"secret", self.CARD.number)
        assert first == card_fingerprint(b"secret", self.CARD.number)
        assert first not in {card_fingerprint(b"other", self.CARD.number), card_fingerprint(b"secret", "5555")}
        assert self.CARD.number.encode() not in first

    @pytest.mark.parametrize("change", [{"number": "5555555555554444"}, {"expiry_month": 1}, {"expiry_year": 2041}])
    def test_digest_depends_on_number_and_expiry(self, change: dict[str, object]) -> None:
        assert card_digest(b"secret", self.CARD) != card_digest(b"secret", replace(self.CARD, **change))  # type: ignore[arg-type]

    def test_digest_does_not_depend_on_the_code(self) -> None:
        assert card_digest(b"secret", self.CARD) == card_digest(b"secret", replace(self.CARD, cvv="321"))
