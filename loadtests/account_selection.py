"""Selection of the sender and the recipient of each transfer."""

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, cycle, pairwise
from typing import Final, TypeAlias

_CHUNK: Final = 1_000

AccountSelection: TypeAlias = Callable[[random.Random, int], Iterator[tuple[int, int]]]
"""Yields pairs (sender, recipient) of different account numbers below the given count, without end."""


def zipf_pairs(rng: random.Random, accounts: int, skew: float) -> Iterator[tuple[int, int]]:
    """Yield pairs of different accounts from a Zipf distribution, without end.

    The account of rank r (counted from 1) is drawn r ** -skew times as often as the account of rank 1. Skew 0 is
    uniform. If a pair has the same account twice, both are drawn again. If only the recipient were drawn again, the
    frequent accounts would send more often than they receive.
    """
    weights = list(accumulate(rank**-skew for rank in range(1, accounts + 1)))
    numbers = range(accounts)
    while True:
        drawn = iter(rng.choices(numbers, cum_weights=weights, k=2 * _CHUNK))
        for sender, recipient in zip(drawn, drawn, strict=True):
            if sender != recipient:
                yield sender, recipient


def uniform(rng: random.Random, accounts: int) -> Iterator[tuple[int, int]]:
    """Select all accounts with equal probability."""
    return zipf_pairs(rng, accounts, skew=0.0)


def zipf(rng: random.Random, accounts: int) -> Iterator[tuple[int, int]]:
    """Select accounts by a Zipf distribution with exponent 2, so that few accounts take part in most transfers."""
    return zipf_pairs(rng, accounts, skew=2.0)


def hot(rng: random.Random, accounts: int) -> Iterator[tuple[int, int]]:
    """Use the first account in every transfer: alternately as recipient and as sender."""
    while True:
        yield rng.randrange(1, accounts), 0
        yield 0, rng.randrange(1, accounts)


def ring(rng: random.Random, accounts: int) -> Iterator[tuple[int, int]]:
    """Select each account as sender and its successor as recipient; the successor of the last account is the first.

    If a ledger locked the sender before the recipient, concurrent transfers would deadlock: each would wait for the
    account that the next transfer in the ring has locked as its sender.
    """
    start = rng.randrange(accounts)
    return pairwise(cycle((start + number) % accounts for number in range(accounts)))


BY_NAME: Final[Mapping[str, AccountSelection]] = {"uniform": uniform, "zipf": zipf, "hot": hot, "ring": ring}
