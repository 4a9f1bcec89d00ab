from collections import Counter
from uuid import UUID

from benchmarks.accounts import ACCOUNTS, OWNERS, account_id, owner_id


def test_account_id_is_a_uuid_that_ends_with_the_number() -> None:
    assert UUID(account_id(ACCOUNTS - 1)).int & 0xFFFF_FFFF_FFFF == ACCOUNTS - 1


def test_every_owner_has_the_same_number_of_accounts() -> None:
    assert set(Counter(map(owner_id, range(ACCOUNTS))).values()) == {ACCOUNTS // OWNERS}
