from uuid import UUID, uuid4

from subgraphs.bank.service.application.integrity import IdDigest, partition_of_id


def tally(*ids: UUID) -> IdDigest:
    made = IdDigest()
    made.add(ids)
    return made


class TestTally:
    def test_of_the_same_ids_is_the_same_in_whatever_order_they_came(self) -> None:
        ids = [uuid4() for _ in range(100)]
        assert tally(*ids).compare(tally(*reversed(ids))) == {}

    def test_tells_in_which_part_one_is_missing_and_how_many_are_there(self) -> None:
        first, second = UUID(int=0x1FFF), UUID(int=0x2FFF)
        assert tally(first, second).compare(tally(first)) == {0xFFF: (2, 1)}

    def test_tells_one_that_came_twice(self) -> None:
        id_ = uuid4()
        assert tally(id_).compare(tally(id_, id_)) == {partition_of_id(id_): (1, 2)}

    def test_tells_one_that_stands_in_for_another_of_the_same_part(self) -> None:
        ids = [UUID(int=n << 12) for n in range(1, 4)]
        assert tally(*ids).compare(tally(ids[0], ids[0], ids[2])) == {0: (3, 3)}

    def test_tells_two_that_came_twice_instead_of_two_others(self) -> None:
        ids = [uuid4() for _ in range(4)]
        assert tally(*ids).compare(tally(ids[0], ids[0], ids[1], ids[1]))

    def test_parts_are_the_last_three_digits_that_a_person_sees(self) -> None:
        id_ = uuid4()
        assert f"{partition_of_id(id_):03x}" == str(id_)[-3:]
