"""Parameters of a load run, stored in the folder of the run and read by all its processes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import orjson

FILE: Final = "plan.json"
STARTED: Final = "begun"
"""File in the folder of a run; exists once all users are spawned."""
FINISHED_PREFIX: Final = "ended-"
"""Prefix of the file that each process creates after it has written all its records. The process id follows."""


@dataclass(frozen=True, slots=True)
class Customer:
    """Customer of a run, with an account and a token that is valid for the whole run.

    `principal` is the scope of the customer's idempotency keys.
    """

    subject: str
    principal: str
    token: str
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Parameters of a run.

    Attributes:
        host: URL of the gateway.
        bank: gRPC target of the bank, for users that bypass the gateway.
        scenarios: scenario names, see `scenarios.NAMES`; each has an equal share of the users.
        users: number of concurrent users; in an open loop, the maximum number of concurrent requests.
        seconds: duration.
        rate: arrival rate of an open loop, in requests per second; 0 selects a closed loop.
        shape: name from `shapes.BY_NAME`, or empty for constant load.
        account_selection: name from `account_selection.BY_NAME`.
        processes: number of Locust processes that generate load.
        seed: decides the random choices of the users (`loadtests/choices.py`).
        customers: owners of the accounts that take part. No other client uses these accounts.
    """

    host: str
    bank: str = ""
    scenarios: Sequence[str] = ("rest",)
    users: int = 20
    seconds: float = 15.0
    rate: float = 0.0
    shape: str = ""
    account_selection: str = "uniform"
    processes: int = 1
    seed: int = 1
    customers: Sequence[Customer] = field(default=(), repr=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the plan from the folder of a run."""
        return cls.from_json((folder / FILE).read_bytes())

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Return the plan that `to_json` converted."""
        values: dict[str, Any] = orjson.loads(text)
        return cls(**values | {"customers": [Customer(**each) for each in values["customers"]]})

    def to_json(self) -> bytes:
        """Return the plan as JSON. It contains tokens."""
        return orjson.dumps(asdict(self))

    def write(self, folder: Path) -> None:
        """Write the plan. It contains tokens, so only the owner can read the folder."""
        folder.chmod(0o700)
        (folder / FILE).write_bytes(self.to_json())
