"""Operations read their attributes from their message."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from kit.rpc.converters import money_to_proto, time_to_proto
from protos.wallet.analytics.v1 import analytics_pb2
from tests.operations import new_operation
from wallet.money import Money, MoneyError

TRANSFER, ACCOUNT, FRIEND = (UUID(int=number) for number in (1, 2, 3))
WHEN = datetime(2026, 11, 30, 23, 59, 59, 123_456, tzinfo=UTC)


class TestOperation:
    def test_every_attribute_is_that_of_the_message(self) -> None:
        operation = new_operation(
            7,
            id=str(TRANSFER),
            account_id=str(ACCOUNT),
            type=analytics_pb2.OPERATION_TYPE_TOP_UP,
            direction=analytics_pb2.DIRECTION_OUT,
            amount=money_to_proto(Money.parse("1.50", "USD")),
            balance_after=money_to_proto(Money.parse("-0.01", "USD")),
            counterparty_id=str(FRIEND),
            occurred_at=time_to_proto(WHEN),
            epoch="the-epoch",
            description="lunch",
            reference="INV-1",
            metadata={"order": "42"},
        )
        assert (operation.id, operation.account_id, operation.counterparty_id) == (TRANSFER, ACCOUNT, FRIEND)
        assert (operation.id_text, operation.counterparty_id_text) == (str(TRANSFER), str(FRIEND))
        assert (operation.account_version, operation.epoch, operation.occurred_at) == (7, "the-epoch", WHEN)
        assert operation.occurred_at_text == WHEN.isoformat()
        assert (operation.type, operation.direction) == ("TOP_UP", "OUT")
        assert (operation.amount, operation.balance_after) == (Money.parse("1.50", "USD"), Money.parse("-0.01", "USD"))
        assert (operation.amount_text, operation.balance_after_text, operation.currency) == ("1.50", "-0.01", "USD")
        assert (operation.description, operation.reference) == ("lunch", "INV-1")
        assert operation.metadata == {"order": "42"}

    def test_attribute_that_the_message_lacks_fails_when_it_is_read(self) -> None:
        operation = new_operation(1, type=analytics_pb2.OPERATION_TYPE_UNSPECIFIED, amount=None)
        assert operation.id_text
        with pytest.raises(KeyError):
            _ = operation.type
        with pytest.raises(MoneyError):
            _ = operation.amount_text
