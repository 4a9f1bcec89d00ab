"""Ids of the benchmark accounts and of their owners."""

from typing import Final

ACCOUNTS: Final = 10_000
OWNERS: Final = 100


def account_id(number: int) -> str:
    """Return the id of an account. `pgbench.sql` and `ledger.py` compute the same ids in SQL.

    The ids have hex letters, as those of real accounts do. Ids of digits alone look like card numbers, for which the
    log has a slower path.
    """
    return f"a1b2c3d4-e5f6-4a7b-8c9d-{number:012x}"


def owner_id(number: int) -> str:
    """Return the owner of the account with this number."""
    return f"owner-{number % OWNERS}"
