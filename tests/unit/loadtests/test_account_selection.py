"""Selection of the sender and the recipient of each transfer."""

import math
import random
from collections import Counter
from itertools import islice

import pytest

from loadtests import account_selection
from loadtests.account_selection import zipf_pairs


def draw_pairs(accounts: int, skew: float, count: int = 50_000) -> list[tuple[int, int]]:
    return list(islice(zipf_pairs(random.Random(7), accounts, skew), count))


class TestZipfPairs:
    @pytest.mark.parametrize("skew", [0.0, 2.0])
    def test_sender_and_recipient_differ(self, skew: float) -> None:
        assert all(sender != recipient for sender, recipient in draw_pairs(10, skew))

    def test_accounts_are_uniform_without_skew(self) -> None:
        senders = Counter(sender for sender, _ in draw_pairs(10, skew=0.0))
        assert set(senders) == set(range(10))
        assert all(math.isclose(count, 5_000, rel_tol=0.1) for count in senders.values())

    def test_frequency_of_a_rank_follows_zipf(self) -> None:
        """A pair with the same account twice is drawn again, so the weight of rank r becomes w(r) * (1 - w(r))."""
        total = sum(rank**-2.0 for rank in range(1, 101))
        weights = [rank**-2.0 / total for rank in range(1, 101)]
        remaining = [weight * (1 - weight) for weight in weights]
        count = 50_000
        for side in zip(*draw_pairs(100, skew=2.0, count=count), strict=True):
            observed = Counter(side)
            for rank in (1, 2, 3, 10):
                expected = count * remaining[rank - 1] / sum(remaining)
                assert abs(observed[rank - 1] - expected) < 5 * math.sqrt(expected)

    def test_hottest_account_is_in_most_transfers(self) -> None:
        transfers = draw_pairs(10_000, skew=2.0, count=10_000)
        assert sum(0 in pair for pair in transfers) > len(transfers) * 0.7


@pytest.mark.parametrize("name", account_selection.BY_NAME)
def test_selection_covers_all_accounts_and_never_pairs_an_account_with_itself(name: str) -> None:
    pairs = list(islice(account_selection.BY_NAME[name](random.Random(1), 10), 2_000))
    assert all(sender != recipient for sender, recipient in pairs)
    assert {account for pair in pairs for account in pair} == set(range(10))


def test_hot_account_is_in_every_pair() -> None:
    assert all(0 in pair for pair in islice(account_selection.hot(random.Random(1), 10), 100))


def test_ring_pairs_each_account_with_its_successor() -> None:
    pairs = islice(account_selection.ring(random.Random(1), 5), 50)
    assert all((sender + 1) % 5 == recipient for sender, recipient in pairs)


def test_zipf_selects_the_first_account_most_often() -> None:
    pairs = islice(account_selection.zipf(random.Random(1), 100), 1_000)
    counts = Counter(account for pair in pairs for account in pair)
    assert counts[0] > counts[1] > counts[9]
