"""The process dies between any two things that it does outside itself: every cut, on every path, enumerated."""

import asyncio
from dataclasses import dataclass, replace
from uuid import UUID

import pytest

from subgraphs.card.service.application.saga import Timing
from subgraphs.card.service.domain.top_up import Status, TopUp
from tests.integration.card.environment import AT_ONCE, LIMITS, Died, Mortal, World
from tests.integration.card.environment import VISA as APPROVED
from tests.integration.card.fake_acquirer import Trouble

LATE = replace(AT_ONCE, authorization_window_seconds=-1.0)


@dataclass(frozen=True)
class Path:
    """A way that a top-up may go: what is arranged before, and where it ends if nobody dies."""

    ends: Status
    number: str = APPROVED
    troubles: tuple[tuple[str, Trouble], ...] = ()
    closes_after: str | None = None
    arrives_after: str | None = None

    async def arrange(self, here: World, account: UUID) -> None:
        for method, trouble in self.troubles:
            here.acquirer.troubles[method].append(trouble)
        if self.closes_after:
            here.acquirer.then[self.closes_after] = lambda: here.close(account)
        if self.arrives_after:
            here.acquirer.then[self.arrives_after] = lambda: arrive(here)


async def arrive(here: World) -> None:
    here.acquirer.arrive()


PATHS = {
    "happy": Path(Status.COMPLETED),
    "declined": Path(Status.DECLINED, number="4000000000000002"),
    "voided, since a capture is refused": Path(Status.VOIDED, number="4000000000020042"),
    "voided, since the account was closed before the capture": Path(Status.VOIDED, closes_after="authorize"),
    "refunded, since the account was closed after it": Path(Status.REFUNDED, closes_after="capture"),
    "authorization unknown, and it did not come to be": Path(
        Status.VOIDED, troubles=(("authorize", Trouble.SILENT_BEFORE),)
    ),
    "authorization unknown, and it came to be": Path(Status.COMPLETED, troubles=(("authorize", Trouble.SILENT_AFTER),)),
    "authorization late, when its key is barred": Path(
        Status.VOIDED, troubles=(("authorize", Trouble.LATE),), arrives_after="cancel"
    ),
    "authorization late, between the question and the cancellation": Path(
        Status.VOIDED, troubles=(("authorize", Trouble.LATE),), arrives_after="find"
    ),
    "captured without an answer": Path(Status.COMPLETED, troubles=(("capture", Trouble.SILENT_AFTER),)),
    "given up, and captured after all": Path(
        Status.REFUNDED, troubles=(*((("capture", Trouble.SILENT_BEFORE),) * 2), ("capture", Trouble.SILENT_AFTER))
    ),
    "voided and refunded without an answer": Path(
        Status.REFUNDED,
        closes_after="capture",
        troubles=(("refund", Trouble.SILENT_AFTER), ("refund", Trouble.SILENT_BEFORE)),
    ),
}


async def run(here: World, path: Path, mortal: Mortal) -> TopUp | None:
    """One life of the process: from the request as far as it comes. What it leaves."""
    account = await here.open()
    await path.arrange(here, account)
    wish = await here.wish(account, here.money("10.00"), path.number)
    repository, saga = mortal.around(here.repository), here.saga(mortal)
    try:
        top_up = await repository.admit(wish, LIMITS, lease_seconds=0)
        while top_up.is_under_way:
            top_up = await saga.drive(top_up)
    except Died:
        pass
    return await here.repository.find(wish.key)


async def die(here: World, path: Path, cut: int, timing: Timing = AT_ONCE) -> None:
    """The process dies at a cut, and another one finishes what it has left."""
    left = await run(here, path, Mortal(cut))
    assert (left is None) == (cut == 0)
    if left is not None:
        await here.finish(left, timing)
        await here.agree(left)


class TestDeath:
    @pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
    async def test_at_every_cut_leaves_nothing_that_a_fresh_process_cannot_finish(
        self, shared: World, path: Path
    ) -> None:
        whole, here = Mortal(), shared.anew()
        top_up = await run(here, path, whole)
        assert top_up is not None
        assert (await here.agree(top_up)).status is path.ends
        await asyncio.gather(
            *(die(shared.anew(), path, cut) for cut in range(whole.passed)),
            # Found so late that the card must not be charged any more. Later cuts do not ask how late it is.
            *(die(shared.anew(), path, cut, LATE) for cut in (1, 2)),
        )
