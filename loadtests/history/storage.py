"""Records of a run on disk: one file per process, one JSON line per request.

Times are on the monotonic clock, which all processes of a machine share. In memory, a process keeps only the records in
the buffer of its file. The history checker reads all files.
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

from loadtests.history.calls import (
    Answer,
    IdempotencyKey,
    LedgerRequest,
    NoEffect,
    Receipt,
    RecordedCall,
    Refusal,
    RequestBody,
    TopUpState,
    UnknownOutcome,
)

_BUFFER_BYTES: Final = 1 << 16
_ANSWERS: Final[Mapping[str, type[Answer]]] = {
    kind.__name__: kind for kind in (Receipt, Refusal, TopUpState, UnknownOutcome, NoEffect)
}


@dataclass(frozen=True, slots=True)
class SubscriptionRecord:
    """Account versions that a subscriber received, in order of arrival. The n-th operation of an account has version n.

    Attributes:
        account_id: account of the subscription.
        after: version after which the subscription started.
        versions: received versions.
        latencies_ms: milliseconds from the commit of a version to its arrival, for the versions that were committed
            after the subscription started.
    """

    account_id: UUID
    after: int
    versions: Sequence[int]
    latencies_ms: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request of any kind.

    Attributes:
        name: name in reports.
        due: scheduled time; in an open loop it may be earlier than `began`.
        began: time of sending.
        ended: time of the response or of the time-out.
        error: short name of the error, or empty. A refusal by the ledger is not an error.
        request: the request, if it is a request to the ledger; else None.
        answer: response to a request to the ledger; else None.
        subscription: versions that a subscriber received; None if the request is no subscription.
        dropped: number of requests that were due while all users were busy, and that were never sent.
    """

    name: str
    due: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    error: str = ""
    request: LedgerRequest | None = None
    answer: Answer | None = None
    subscription: SubscriptionRecord | None = None
    dropped: int = 0


class HistoryWriter:
    """Writer of this process's file of records. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / f"history-{os.getpid()}.jsonl").open("ab", buffering=_BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, record: RequestRecord) -> None:
        """Append a record to the buffer."""
        answer = None if record.answer is None else (type(record.answer).__name__, record.answer)
        # Not `asdict`: it copies nested values, which takes five times as long.
        values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        self._file.write(orjson.dumps(values | {"answer": answer}, default=_decimal_to_str) + b"\n")

    def flush(self) -> None:
        """Write the buffer to the file."""
        self._file.flush()

    def close(self) -> None:
        """Write the buffer and close the file."""
        self._file.close()


def read_records(folder: Path) -> Iterator[RequestRecord]:
    """Yield the records of all processes. A last line that is incomplete, because its process died, is skipped."""
    for file in sorted(folder.glob("history-*.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield _record_from_json(orjson.loads(line))


def calls_from_records(records: Iterable[RequestRecord]) -> list[RecordedCall]:
    """Return the calls to the ledger, in the order in which they ended."""
    answered = sorted((each for each in records if each.request and each.answer), key=lambda each: each.ended)
    return [
        RecordedCall(number, each.request, each.began, each.ended, each.answer)
        for number, each in enumerate(answered, 1)
        if each.request and each.answer
    ]


def _decimal_to_str(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)


def _record_from_json(data: dict[str, Any]) -> RequestRecord:
    if data["request"]:
        data["request"] = _request_from_json(data["request"])
    if data["answer"]:
        data["answer"] = _answer_from_json(*data["answer"])
    if subscription := data["subscription"]:
        data["subscription"] = SubscriptionRecord(**subscription | {"account_id": UUID(subscription["account_id"])})
    return RequestRecord(**data)


def _request_from_json(data: dict[str, Any]) -> LedgerRequest:
    body = data["body"]
    accounts = UUID(body.pop("sender_id")), UUID(body.pop("recipient_id"))
    return LedgerRequest(
        IdempotencyKey(**data["key"]),
        RequestBody(*accounts, **body | {"amount": Decimal(body["amount"])}),
        data["owner_id"],
    )


def _answer_from_json(kind: str, data: dict[str, Any]) -> Answer:
    for name in ("transfer_id", "account_id", "id"):
        if data.get(name):
            data[name] = UUID(data[name])
    for name in ("balance_after", "amount"):
        if data.get(name):
            data[name] = Decimal(data[name])
    return _ANSWERS[kind](**data)
