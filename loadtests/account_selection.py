"""Who pays whom."""

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, pairwise
from typing import Final, TypeAlias

from benchmarks.accounts import pairs

Choice: TypeAlias = Callable[[random.Random, int], Iterator[tuple[int, int]]]
"""Senders and recipients among so many accounts, for ever; never the same account."""


def uniform(chance: random.Random, accounts: int) -> Iterator[tuple[int, int]]:
    """Everybody pays everybody alike."""
    return pairs(chance, accounts, skew=0.0)


def zipf(chance: random.Random, accounts: int) -> Iterator[tuple[int, int]]:
    """Few accounts take part in most transfers: by Zipf's law with exponent 2."""
    return pairs(chance, accounts, skew=2.0)


def hot(chance: random.Random, accounts: int) -> Iterator[tuple[int, int]]:
    """One account takes part in every transfer, by turns as the one who pays and the one who is paid."""
    while True:
        yield chance.randrange(1, accounts), 0
        yield 0, chance.randrange(1, accounts)


def ring(chance: random.Random, accounts: int) -> Iterator[tuple[int, int]]:
    """Each pays the next one, and the last one the first: locks taken in the order of asking would meet in a circle."""
    start = chance.randrange(accounts)
    return pairwise(cycle((start + number) % accounts for number in range(accounts)))


BY_NAME: Final[Mapping[str, Choice]] = {"uniform": uniform, "zipf": zipf, "hot": hot, "ring": ring}
