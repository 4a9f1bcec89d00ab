"""Operation of an account, read from its message."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from kit.rpc.converters import money_from_proto, money_text, time_from_proto, time_text
from protos.wallet.analytics.v1 import analytics_pb2
from wallet.money import Money

OPERATION_TYPES: Final[Mapping[int, Literal["TRANSFER", "TOP_UP"]]] = {
    analytics_pb2.OPERATION_TYPE_TRANSFER: "TRANSFER",
    analytics_pb2.OPERATION_TYPE_TOP_UP: "TOP_UP",
}
DIRECTIONS: Final[Mapping[int, Literal["IN", "OUT"]]] = {
    analytics_pb2.DIRECTION_IN: "IN",
    analytics_pb2.DIRECTION_OUT: "OUT",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as one account sees it.

    An attribute is converted from the message each time it is read: most readers of a long page need few of them.

    Attributes:
        message: message of the analytics service, which must not change.
    """

    message: analytics_pb2.Operation

    @property
    def id(self) -> UUID:
        """Id of the transfer."""
        return UUID(self.message.id)

    @property
    def id_text(self) -> str:
        """The id as a text."""
        return self.message.id

    @property
    def account_id(self) -> UUID:
        """Account that sees the operation."""
        return UUID(self.message.account_id)

    @property
    def account_version(self) -> int:
        """The account's version after the operation: a counter of the account's operations."""
        return self.message.account_version

    @property
    def epoch(self) -> str:
        """Id of the uninterrupted sequence of the ledger's operations to which the operation belongs.

        A restore from an older backup begins another epoch. The id of the first epoch is the empty text.
        """
        return self.message.epoch

    @property
    def type(self) -> Literal["TRANSFER", "TOP_UP"]:
        """Type of the operation."""
        return OPERATION_TYPES[self.message.type]

    @property
    def direction(self) -> Literal["IN", "OUT"]:
        """Direction of the money: into the account or out of it."""
        return DIRECTIONS[self.message.direction]

    @property
    def amount(self) -> Money:
        """Positive amount; `direction` gives the sign."""
        return money_from_proto(self.message.amount)

    @property
    def balance_after(self) -> Money:
        """Balance of the account after the operation."""
        return money_from_proto(self.message.balance_after)

    @property
    def amount_text(self) -> str:
        """The amount as a decimal number."""
        return money_text(self.message.amount)

    @property
    def balance_after_text(self) -> str:
        """The balance after the operation as a decimal number."""
        return money_text(self.message.balance_after)

    @property
    def currency(self) -> str:
        """Currency of the account."""
        currency: str = self.message.amount.currency_code
        return currency

    @property
    def counterparty_id(self) -> UUID:
        """Account of the other party."""
        return UUID(self.message.counterparty_id)

    @property
    def counterparty_id_text(self) -> str:
        """The id of the other party's account as a text."""
        return self.message.counterparty_id

    @property
    def occurred_at(self) -> datetime:
        """Time of the operation, in UTC."""
        return time_from_proto(self.message.occurred_at)

    @property
    def occurred_at_text(self) -> str:
        """The time as a text in ISO 8601."""
        return time_text(self.message.occurred_at)

    @property
    def description(self) -> str:
        """Text for both sides; empty if there is none."""
        return self.message.description

    @property
    def reference(self) -> str:
        """The sender's own id of the transfer, only on the sender's operation; empty if there is none."""
        return self.message.reference

    @property
    def metadata(self) -> Mapping[str, str]:
        """Data of the caller who made the transfer, only on the sender's operation and only for this caller."""
        return dict(self.message.metadata)
