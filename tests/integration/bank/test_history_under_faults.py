"""The short form of `tests/faults`: a history under fire, and the verdict of the checker."""

from pathlib import Path

import pytest

from tests.conftest import Keys
from tests.integration.bank.fault_trial import trial

pytestmark = pytest.mark.slow


async def test_history_is_consistent_after_bank_kills_and_lost_sessions(
    ledger_url: str, keys: Keys, tmp_path: Path
) -> None:
    async with trial(keys, tmp_path, ledger_url, replicas=1, seed=5) as held:
        summary = await held.run(5, [held.end_sessions, held.kill_bank, held.end_sessions], seconds=6)
    print(summary)  # noqa: T201  shown when the test fails
    assert held.reasons >= {"INSUFFICIENT_FUNDS", "IDEMPOTENCY_CONFLICT"}
    assert held.faults["kill bank"] == 1
