"""What a load run is: decided once, written into the run's folder, read by every process that takes part."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import orjson

FILE: Final = "plan.json"
BEGUN: Final = "begun"
"""Is in a run's folder as soon as there are users."""
ENDED: Final = "ended-"
"""With a process's id: is there as soon as all of its history is."""


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody with an account, and a token that is valid for as long as the run. `principal` is what their keys are
    scoped by.
    """

    subject: str
    principal: str
    token: str
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run.

    Attributes:
        host: the front door, as a URL.
        bank: the bank's gRPC target, for those who go by the back door.
        scenarios: names of `scenarios.BY_NAME`; each user is of one of them, in equal parts.
        users: how many are there at once; in an open loop, how many requests there may be at once.
        seconds: for how long.
        rate: requests a second, whatever becomes of those before (an open loop); 0: each user asks again as soon as
            they are answered (a closed one).
        shape: a name of `shapes.BY_NAME`, or empty for the same load all the time.
        choice: who pays whom, a name of `choices.BY_NAME`.
        processes: of Locust's that make the load; 1 makes it in one.
        seed: of all that is random but time itself.
        customers: whose accounts the money goes between; nobody else uses these.
    """

    host: str
    bank: str = ""
    scenarios: Sequence[str] = ("rest",)
    users: int = 20
    seconds: float = 15.0
    rate: float = 0.0
    shape: str = ""
    choice: str = "uniform"
    processes: int = 1
    seed: int = 1
    customers: Sequence[Customer] = field(default=(), repr=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The plan that was written there."""
        told: dict[str, Any] = orjson.loads((folder / FILE).read_bytes())
        return cls(**told | {"customers": [Customer(**each) for each in told["customers"]]})

    def write(self, folder: Path) -> None:
        """Writes it down. It has tokens in it: the folder is its owner's."""
        folder.chmod(0o700)
        (folder / FILE).write_bytes(orjson.dumps(asdict(self)))
