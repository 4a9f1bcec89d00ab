"""Accounts and their owners in the benchmarks."""

from typing import Final

ACCOUNTS: Final = 10_000
OWNERS: Final = 100


def account_id(number: int) -> str:
    """The id of an account, as `pgbench.sql` makes it, too."""
    return f"00000000-0000-4000-8000-{number:012x}"


def owner_id(number: int) -> str:
    """Whom an account belongs to."""
    return f"owner-{number % OWNERS}"
