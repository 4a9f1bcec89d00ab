"""Ids of the benchmark accounts and of their owners."""

from typing import Final

ACCOUNTS: Final = 10_000
OWNERS: Final = 100


def account_id(number: int) -> str:
    """Return the id of an account. `pgbench.sql` and `ledger.py` compute the same ids in SQL."""
    return f"00000000-0000-4000-8000-{number:012x}"


def owner_id(number: int) -> str:
    """Return the owner of the account with this number."""
    return f"owner-{number % OWNERS}"
