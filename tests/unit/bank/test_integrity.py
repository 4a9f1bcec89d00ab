from uuid import UUID, uuid4

from subgraphs.bank.service.application.integrity import IdDigest, partition_of_id


def digest(*ids: UUID) -> IdDigest:
    result = IdDigest()
    result.add(ids)
    return result


class TestIdDigest:
    def test_digest_is_independent_of_the_order_of_ids(self) -> None:
        ids = [uuid4() for _ in range(100)]
        assert digest(*ids).compare(digest(*reversed(ids))) == {}

    def test_compare_returns_the_partition_and_counts_of_a_missing_id(self) -> None:
        first, second = UUID(int=0x1FFF), UUID(int=0x2FFF)
        assert digest(first, second).compare(digest(first)) == {0xFFF: (2, 1)}

    def test_compare_detects_a_duplicated_id(self) -> None:
        id_ = uuid4()
        assert digest(id_).compare(digest(id_, id_)) == {partition_of_id(id_): (1, 2)}

    def test_compare_detects_an_id_replaced_within_its_partition(self) -> None:
        ids = [UUID(int=n << 12) for n in range(1, 4)]
        assert digest(*ids).compare(digest(ids[0], ids[0], ids[2])) == {0: (3, 3)}

    def test_compare_detects_two_ids_duplicated_instead_of_two_others(self) -> None:
        ids = [uuid4() for _ in range(4)]
        assert digest(*ids).compare(digest(ids[0], ids[0], ids[1], ids[1]))

    def test_partition_is_the_last_three_digits_of_the_id(self) -> None:
        id_ = uuid4()
        assert f"{partition_of_id(id_):03x}" == str(id_)[-3:]
