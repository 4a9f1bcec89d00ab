"""A history that was written down is the same when it is read."""

import os
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from loadtests.history import log
from loadtests.history.calls import Answer, Body, Key, Nothing, Receipt, Refusal, TopUp, Unknown, Wish
from loadtests.history.log import Feed, Line, Log

ALICE, BOB, MADE = (UUID(int=n) for n in range(3))
WISH = Wish(Key("issuer|alice", "transfer", "k"), Body(ALICE, BOB, Decimal("10.50")), "alice")


@pytest.mark.parametrize(
    "answer",
    [
        Receipt(MADE, ALICE, 7, Decimal("1.20"), Decimal("10.50")),
        Receipt(MADE, ALICE, None, None, Decimal("10.50")),
        Refusal("INSUFFICIENT_FUNDS", {"needed": "10.50", "available": "1.00"}),
        TopUp(MADE, "COMPLETED", BOB),
        TopUp(MADE, "CREATED"),
        Unknown("UNAVAILABLE"),
        Nothing("RATE_LIMITED"),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_of_a_wish_and_each_kind_of_answer(tmp_path: Path, answer: Answer) -> None:
    line = Line(name="transfer", due=1.0, began=1.5, ended=2.0, error="", wish=WISH, answer=answer)
    with Log(tmp_path) as written:
        written.write(line)
    assert list(log.read(tmp_path)) == [line]


def test_of_reads_feeds_and_what_was_dropped(tmp_path: Path) -> None:
    lines = [
        Line(name="balance", began=1.0, ended=2.0, error="UNAVAILABLE"),
        Line(name="feed", feed=Feed(ALICE, 0, [1, 2], [0.5])),
        Line(name="dropped", due=3.0, dropped=1),
    ]
    with Log(tmp_path) as written:
        for line in lines:
            written.write(line)
    assert list(log.read(tmp_path)) == lines


def test_of_a_process_that_was_killed_in_the_middle_of_a_line_is_what_it_had_written(tmp_path: Path) -> None:
    with Log(tmp_path) as written:
        written.write(Line(name="first"))
        written.write(Line(name="second"))
    file = tmp_path / f"history-{os.getpid()}.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    assert [line.name for line in log.read(tmp_path)] == ["first"]


def test_of_several_processes_is_one_in_the_order_of_the_answers(tmp_path: Path) -> None:
    for pid, times in (("1", (1.0, 4.0)), ("2", (2.0, 3.0))):
        with Log(tmp_path) as written:
            for ended in times:
                written.write(Line(name="transfer", ended=ended, wish=WISH, answer=Unknown("UNAVAILABLE")))
        (tmp_path / f"history-{os.getpid()}.jsonl").rename(tmp_path / f"history-0{pid}.jsonl")
    assert [(call.number, call.ended) for call in log.calls(log.read(tmp_path))] == [(1, 1), (2, 2), (3, 3), (4, 4)]
