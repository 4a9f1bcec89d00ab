"""A history on disk: one file a process, a line of JSON a call, so that many processes write one history together.

Times are on the monotonic clock, which all processes of a machine share. A process holds no more of its history in
memory than the file's buffer; whoever judges reads all of it.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import orjson

from loadtests.history.calls import Answer, Body, Call, Key, Nothing, Receipt, Refusal, TopUp, Unknown, Wish

_BUFFER_BYTES: Final = 1 << 16
_ANSWERS: Final[Mapping[str, type[Answer]]] = {
    kind.__name__: kind for kind in (Receipt, Refusal, TopUp, Unknown, Nothing)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One request of whatever kind.

    Attributes:
        name: what people call it in a report.
        due: when it should have been made; in an open loop that may be before it could be.
        began: when it was made.
        ended: when it was answered, or given up.
        error: a short name of what was wrong with the answer; empty where nothing was. What the ledger refuses with
            reason is no error.
        wish: what was asked of the ledger, if anything was.
        answer: what came of that.
        feed: what a subscriber saw.
        dropped: requests that were due while everybody was busy, and never made.
    """

    name: str
    due: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    error: str = ""
    wish: Wish | None = None
    answer: Answer | None = None
    feed: "Feed | None" = None
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Feed:
    """The versions that a subscriber was told of, in that order, of those after one; and how long after each commit, in
    milliseconds.
    """

    account_id: UUID
    after: int
    versions: Sequence[int]
    latencies_ms: Sequence[float]


class Log:
    """Where one process writes. Open inside the `with`."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / f"history-{os.getpid()}.jsonl").open("ab", buffering=_BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, line: Line) -> None:
        """Appends a line, whole."""
        answer = None if line.answer is None else (type(line.answer).__name__, line.answer)
        # Not asdict: it copies all that it meets, at five times the price.
        told = {field.name: getattr(line, field.name) for field in dataclasses.fields(line)} | {"answer": answer}
        self._file.write(orjson.dumps(told, default=_plain) + b"\n")

    def flush(self) -> None:
        """Writes what is buffered."""
        self._file.flush()

    def close(self) -> None:
        """The same, for the last time."""
        self._file.close()


def read(folder: Path) -> Iterator[Line]:
    """Every line of every process. One that was cut off with its process is left out."""
    for file in sorted(folder.glob("history-*.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield _line(orjson.loads(line))


def calls(lines: Iterable[Line]) -> list[Call]:
    """What was asked of the ledger, in the order of the answers."""
    asked = sorted((line for line in lines if line.wish and line.answer), key=lambda line: line.ended)
    return [
        Call(number, line.wish, line.began, line.ended, line.answer)
        for number, line in enumerate(asked, 1)
        if line.wish and line.answer
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)


def _line(told: dict[str, Any]) -> Line:
    if told["wish"]:
        told["wish"] = _wish(told["wish"])
    if told["answer"]:
        told["answer"] = _answer(*told["answer"])
    if told["feed"]:
        told["feed"] = Feed(**told["feed"] | {"account_id": UUID(told["feed"]["account_id"])})
    return Line(**told)


def _wish(told: dict[str, Any]) -> Wish:
    body = told["body"]
    sides = UUID(body["sender_id"]), UUID(body["recipient_id"])
    return Wish(Key(**told["key"]), Body(*sides, Decimal(body["amount"]), body["currency"]), told["owner_id"])


def _answer(kind: str, told: dict[str, Any]) -> Answer:
    for name in ("transfer_id", "account_id", "id"):
        if told.get(name):
            told[name] = UUID(told[name])
    for name in ("balance_after", "amount"):
        if told.get(name):
            told[name] = Decimal(told[name])
    return _ANSWERS[kind](**told)
