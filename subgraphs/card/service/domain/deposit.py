"""Deposits of top-ups in the ledger, and the bank's responses about them."""

from dataclasses import dataclass
from uuid import UUID

from wallet.money import Money


@dataclass(frozen=True, slots=True)
class Deposit:
    """Deposit that the ledger has for a top-up. The descriptor of the transfer, a text by name, has the top-up's id."""

    transfer_id: UUID
    top_up_id: str
    account_id: UUID
    amount: Money


@dataclass(frozen=True, slots=True)
class Deposited:
    """The bank has credited the account."""

    transfer_id: UUID


@dataclass(frozen=True, slots=True)
class AccountRefused:
    """The bank refuses permanently to credit the account. `reason` is the machine name of the error."""

    reason: str


@dataclass(frozen=True, slots=True)
class DepositConflict:
    """The bank has stored another request with the deposit's key, or rejects the request as invalid."""
