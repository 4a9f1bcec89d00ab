from collections import Counter
from uuid import UUID

from benchmarks.accounts import ACCOUNTS, OWNERS, account_id, owner_id


def test_account_id_is_a_uuid_of_its_number() -> None:
    assert UUID(account_id(ACCOUNTS - 1)).int & 0xFFFF_FFFF_FFFF == ACCOUNTS - 1


def test_owners_hold_equally_many_accounts() -> None:
    assert set(Counter(map(owner_id, range(ACCOUNTS))).values()) == {ACCOUNTS // OWNERS}
