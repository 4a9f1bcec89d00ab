"""`make demo`, which shows the API step by step, runs all steps, and fails when a step fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stack import demo
from stack.demo import StepError

pytestmark = pytest.mark.slow


class TestDemo:
    async def test_demo_runs_all_steps(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert await demo.demo() == 0
        assert "All steps passed" in capsys.readouterr().out

    async def test_demo_fails_when_a_step_fails(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class BrokenTour:
            def __init__(self, system: object) -> None:
                pass

            async def run(self) -> None:
                raise StepError("expected balance to be '990.00', not '980.00'")

        @asynccontextmanager
        async def nothing(*args: Any, **kwargs: Any) -> AsyncIterator[None]:
            yield

        monkeypatch.setattr(demo, "run_system", nothing)
        monkeypatch.setattr(demo, "Tour", BrokenTour)
        assert await demo.demo() == 1
        assert "'980.00'" in capsys.readouterr().out
