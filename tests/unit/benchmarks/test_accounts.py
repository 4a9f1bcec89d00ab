import math
import random
from collections import Counter
from itertools import islice
from uuid import UUID

import pytest

from benchmarks.accounts import ACCOUNTS, OWNERS, account_id, owner_id, pairs


def drawn(accounts: int, skew: float, count: int = 50_000) -> list[tuple[int, int]]:
    return list(islice(pairs(random.Random(7), accounts, skew), count))


class TestPairs:
    @pytest.mark.parametrize("skew", [0.0, 2.0])
    def test_nobody_pays_themselves(self, skew: float) -> None:
        assert all(sender != recipient for sender, recipient in drawn(10, skew))

    def test_without_skew_all_are_alike(self) -> None:
        senders = Counter(sender for sender, _ in drawn(10, skew=0.0))
        assert set(senders) == set(range(10))
        assert all(math.isclose(count, 5_000, rel_tol=0.1) for count in senders.values())

    def test_with_skew_a_rank_is_drawn_as_zipf_has_it(self) -> None:
        """A pair of one account is drawn anew: what is left of rank r has weight w(r) * (1 - w(r))."""
        total = sum(rank**-2.0 for rank in range(1, 101))
        weights = [rank**-2.0 / total for rank in range(1, 101)]
        left = [weight * (1 - weight) for weight in weights]
        count = 50_000
        for side in zip(*drawn(100, skew=2.0, count=count), strict=True):
            found = Counter(side)
            for rank in (1, 2, 3, 10):
                expected = count * left[rank - 1] / sum(left)
                assert abs(found[rank - 1] - expected) < 5 * math.sqrt(expected)

    def test_the_hottest_account_is_in_most_transfers(self) -> None:
        transfers = drawn(ACCOUNTS, skew=2.0, count=10_000)
        assert sum(0 in pair for pair in transfers) > len(transfers) * 0.7


class TestAccounts:
    def test_an_id_is_a_uuid_of_its_number(self) -> None:
        assert UUID(account_id(ACCOUNTS - 1)).int & 0xFFFF_FFFF_FFFF == ACCOUNTS - 1

    def test_owners_hold_equally_many(self) -> None:
        assert set(Counter(map(owner_id, range(ACCOUNTS))).values()) == {ACCOUNTS // OWNERS}
