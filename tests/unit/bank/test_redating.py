"""New dates of operations that are dated in the future."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgraphs.bank.service.domain.redating import DatedTransfer, redate

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FUTURE = NOW + timedelta(days=400)
ALICE, BOB, CAROL = (UUID(int=number) for number in (1, 2, 3))
OPENED = NOW - timedelta(days=9)
LAST = {ALICE: OPENED, BOB: OPENED, CAROL: OPENED}


def uuid7_at(at: datetime, number: int = 0) -> UUID:
    return UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | number)


def transfer(id_: UUID, sender: UUID, sender_version: int, recipient: UUID, recipient_version: int) -> DatedTransfer:
    return DatedTransfer(id_, FUTURE, sender, sender_version, recipient, recipient_version)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def test_transfer_gets_the_time_of_its_id() -> None:
    id_ = uuid7_at(days_ago(2))
    assert redate([transfer(id_, ALICE, 1, BOB, 1)], LAST, NOW) == (
        {id_: days_ago(2)},
        {ALICE: days_ago(2), BOB: days_ago(2), CAROL: OPENED},
    )


@pytest.mark.parametrize(
    "id_", [uuid7_at(FUTURE), UUID(int=9), uuid7_at(OPENED - timedelta(days=1)), UUID(int=2**128 - 1)]
)
def test_transfer_whose_id_has_no_valid_time_gets_the_time_of_the_previous_operation(id_: UUID) -> None:
    dates, _ = redate([transfer(id_, ALICE, 1, BOB, 1)], LAST | {BOB: days_ago(3)}, NOW)
    assert dates == {id_: days_ago(3)}


def test_time_never_decreases_with_the_version() -> None:
    first, second, third = uuid7_at(days_ago(1)), uuid7_at(days_ago(2)), uuid7_at(FUTURE)
    transfers = [
        transfer(third, CAROL, 1, BOB, 2),
        transfer(second, ALICE, 2, CAROL, 2),
        transfer(first, ALICE, 1, BOB, 1),
    ]
    dates, last = redate(transfers, LAST, NOW)
    assert dates == {first: days_ago(1), second: days_ago(1), third: days_ago(1)}
    assert last == dict.fromkeys(LAST, days_ago(1))


def test_contradicting_versions_are_an_error() -> None:
    transfers = [transfer(UUID(int=1), ALICE, 1, BOB, 2), transfer(UUID(int=2), ALICE, 2, BOB, 1)]
    with pytest.raises(ValueError, match="no order"):
        redate(transfers, LAST, NOW)


def test_account_without_a_change_in_the_future_is_an_error() -> None:
    with pytest.raises(ValueError, match="but the account was last changed in the past"):
        redate([transfer(UUID(int=1), ALICE, 1, BOB, 1)], {ALICE: OPENED}, NOW)


@given(st.data())
def test_new_dates_follow_versions_and_are_not_in_the_future(data: st.DataObject) -> None:
    accounts = [UUID(int=number) for number in range(1, 5)]
    versions, transfers = dict.fromkeys(accounts, 0), []
    for number in range(data.draw(st.integers(0, 20))):
        sender, recipient = data.draw(st.permutations(accounts))[:2]
        for account in (sender, recipient):
            versions[account] += 1
        id_ = uuid7_at(NOW + timedelta(hours=data.draw(st.integers(-300, 300))), number)
        transfers.append(transfer(id_, sender, versions[sender], recipient, versions[recipient]))
    last_dates = {account: NOW - timedelta(hours=data.draw(st.integers(0, 200))) for account in accounts}
    dates, last = redate(data.draw(st.permutations(transfers)), last_dates, NOW)
    reached = dict(last_dates)
    for each in transfers:
        for account in (each.sender_id, each.recipient_id):
            assert reached[account] <= dates[each.id] <= NOW
            reached[account] = dates[each.id]
    assert last == reached
