"""The accounts that are measured with, and who pays whom."""

import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

ACCOUNTS: Final = 10_000
OWNERS: Final = 100

_CHUNK: Final = 1_000


def account_id(number: int) -> str:
    """The id of an account, as `reference.sql` makes it, too."""
    return f"00000000-0000-4000-8000-{number:012x}"


def owner_id(number: int) -> str:
    """Whom an account belongs to."""
    return f"owner-{number % OWNERS}"


def pairs(chance: random.Random, accounts: int, skew: float) -> Iterator[tuple[int, int]]:
    """Senders and recipients, for ever; never the same account.

    Each is drawn from Zipf's law: the account of rank r (counted from 1) r ** -skew as often as the first. Skew 0 is
    uniform. A pair of one account is drawn anew as a pair, so that each account is paid as often as it pays.
    """
    weights = list(accumulate(rank**-skew for rank in range(1, accounts + 1)))
    everyone = range(accounts)
    while True:
        drawn = iter(chance.choices(everyone, cum_weights=weights, k=2 * _CHUNK))
        for sender, recipient in zip(drawn, drawn, strict=True):
            if sender != recipient:
                yield sender, recipient
