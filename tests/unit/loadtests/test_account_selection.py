"""Who pays whom."""

import random
from collections import Counter
from itertools import islice

import pytest

from loadtests import choices


@pytest.mark.parametrize("name", choices.BY_NAME)
def test_nobody_pays_themselves_and_everybody_is_there(name: str) -> None:
    pairs = list(islice(choices.BY_NAME[name](random.Random(1), 10), 2_000))
    assert all(sender != recipient for sender, recipient in pairs)
    assert {account for pair in pairs for account in pair} == set(range(10))


def test_one_hot_account_is_in_every_pair() -> None:
    assert all(0 in pair for pair in islice(choices.hot(random.Random(1), 10), 100))


def test_round_a_ring_each_pays_the_next() -> None:
    assert all((sender + 1) % 5 == recipient for sender, recipient in islice(choices.ring(random.Random(1), 5), 50))


def test_by_zipf_the_first_takes_part_in_most() -> None:
    counts = Counter(account for pair in islice(choices.zipf(random.Random(1), 100), 1_000) for account in pair)
    assert counts[0] > counts[1] > counts[9]
