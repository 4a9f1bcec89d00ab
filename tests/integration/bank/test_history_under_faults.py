"""Short form of `tests/faults/test_ledger_history.py`: a bank under load and faults, then a check of its responses."""

from pathlib import Path

import pytest

from tests.conftest import Keys
from tests.integration.bank.fault_trial import run_trial

pytestmark = pytest.mark.slow


async def test_history_is_consistent_after_bank_kills_and_lost_sessions(
    ledger_url: str, keys: Keys, tmp_path: Path
) -> None:
    async with run_trial(keys, tmp_path, ledger_url, replicas=1, seed=5) as trial:
        summary = await trial.run(
            5,
            [
                trial.freeze_account,
                trial.change_floor,
                trial.terminate_sessions,
                trial.kill_bank,
                trial.freeze_account,
                trial.change_floor,
            ],
            seconds=8,
        )
    print(summary)  # noqa: T201  shown when the test fails
    assert trial.refusal_reasons >= {"INSUFFICIENT_FUNDS", "IDEMPOTENCY_CONFLICT"}
    assert trial.faults["kill bank"] == 1
