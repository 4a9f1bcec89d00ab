"""`python -m sandbox` as a process."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from sandbox.__main__ import Settings
from sandbox.cards import CARDS
from stack.process import Child
from tests.integration.sandbox.running import APPROVED, Listener, Merchant, build_settings, code, process
from tests.stopping import assert_stops
from tests.waiting import until

pytestmark = pytest.mark.slow

ProcessFactory = Callable[..., tuple[Child, Merchant]]


@pytest.fixture
async def create_process(tmp_path: Path) -> AsyncIterator[ProcessFactory]:
    """Return a factory of sandbox processes on the same books; they are stopped after the test."""
    created: list[tuple[Child, Merchant]] = []

    def create_process(**overrides: object) -> tuple[Child, Merchant]:
        child, url = process(tmp_path, **overrides)
        created.append((child, Merchant(url)))
        return created[-1]

    yield create_process
    for child, merchant in created:
        await merchant.http.aclose()
        await child.stop()


class TestStart:
    async def test_start_requires_the_not_production_setting(self, create_process: ProcessFactory) -> None:
        child, _ = create_process(sandbox_is_not_production="1")
        await child.spawn()
        assert await child.wait() == 2
        (sentence,) = child.last_lines
        assert "SANDBOX_IS_NOT_PRODUCTION=true" in sentence

    def test_webhook_url_requires_a_secret(self, tmp_path: Path) -> None:
        url = "http://127.0.0.1:1/webhooks"
        environment = build_settings(tmp_path, sandbox_webhook_url=url, sandbox_webhook_secret=None)
        with pytest.raises(ValidationError, match="SANDBOX_WEBHOOK_URL needs SANDBOX_WEBHOOK_SECRET"):
            Settings.model_validate(environment)

    async def test_index_page_describes_the_sandbox(self, merchant: Merchant) -> None:
        page = await merchant.http.get("/")
        assert "sandbox" in page.json()["what"]
        assert [(card["number"], card["meaning"]) for card in page.json()["cards"]] == [
            (number, behaviour.meaning) for number, behaviour in CARDS.items()
        ]
        for response in (page, await merchant.http.get("/v1/payments/pay_unknown")):
            assert (response.headers["server"], response.headers["x-sandbox"]) == ("sandbox-acquirer", "true")


class TestEnd:
    async def test_sigterm_ends_withheld_requests_with_unavailable(self, create_process: ProcessFactory) -> None:
        child, merchant = create_process(sandbox_timeout_seconds=60, sandbox_late_seconds=60)
        await child.start()
        withheld_cards = [
            number for number, each in CARDS.items() if each.name in {"authorize-timeout-before", "authorize-late"}
        ]
        tokens = [await merchant.token(number) for number in withheld_cards]

        async def authorize_when_free(token: str) -> httpx.Response:
            while code(response := await merchant.authorize(token, token, timeout_seconds=60)) == "KEY_IN_USE":
                pass  # a probe with the key was in progress
            return response

        requests = [asyncio.create_task(authorize_when_free(token)) for token in tokens]

        async def are_all_in_progress() -> bool:
            probes = [await merchant.change("capture", "none", token) for token in tokens]
            return {code(probe) for probe in probes} == {"KEY_IN_USE"}

        await until(are_all_in_progress)
        child.send(signal.SIGTERM)
        assert {code(response) for response in await asyncio.gather(*requests)} == {"UNAVAILABLE"}
        await assert_stops(child)
        assert any("this is a sandbox acquirer" in line for line in child.last_lines)
        assert not any('"level": "error"' in line for line in child.last_lines)


def read_files(folder: Path) -> str:
    return b"".join(file.read_bytes() for file in folder.iterdir()).decode(errors="replace")


class TestSecrets:
    async def test_card_number_and_code_are_neither_stored_nor_logged(
        self, create_process: ProcessFactory, tmp_path: Path
    ) -> None:
        lines: list[str] = []
        child, merchant = create_process(log_level="DEBUG")
        child._output = lambda _, line: lines.append(line)
        amex, cvv = "378282246310005", "8273"
        async with child:
            token = (await merchant.tokenize(amex, cvv=cvv)).json()["token"]
            await merchant.tokenize(amex, cvv=cvv + "1")
            await merchant.tokenize(amex, cvv=cvv, expiryMonth=13)
            await merchant.authorize(token, "key")
            kept = read_files(tmp_path)
        logs = "\n".join(lines)
        assert '"/v1/tokens"' in logs
        assert token in kept
        for text in (logs, kept):
            assert amex not in text
            assert not re.search(rf"\b{cvv}\b", text)


class TestKill9:
    async def test_kill_9_under_load_loses_no_payment_and_no_webhook(
        self, create_process: ProcessFactory, listener: Listener
    ) -> None:
        child, merchant = create_process(sandbox_webhook_url=listener.url)
        await child.start()
        token = await merchant.token(APPROVED)
        acknowledged: dict[str, str] = {}
        enough = asyncio.Event()

        async def capture_payments(n: int) -> None:
            """Make ten payments, each retried with its key until it is captured."""
            for key in (f"{n}-{turn}" for turn in range(10)):
                while key not in acknowledged:
                    with suppress(httpx.TransportError):
                        created = await merchant.authorize(token, key)
                        taken = await merchant.change("capture", created.json()["id"], f"{key}:c")
                        acknowledged[key] = taken.json()["id"]
                        if len(acknowledged) == 30:
                            enough.set()

        async with listener.listening():
            load = asyncio.gather(*(capture_payments(n) for n in range(10)))
            await enough.wait()
            child.kill()
            assert await child.wait() == -signal.SIGKILL
            known = dict(acknowledged)
            assert len(known) < 100
            await child.start()
            async with asyncio.timeout(20):
                await load
            assert known.items() <= acknowledged.items()
            created = (await merchant.http.get("/v1/payments", params={"limit": 1000})).json()["payments"]
            assert {payment["idempotencyKey"]: payment["id"] for payment in created} == acknowledged
            assert {payment["status"] for payment in created} == {"CAPTURED"}

            async def have_all_arrived() -> bool:
                return all(
                    set(listener.received_statuses(id_)) == {"AUTHORIZED", "CAPTURED"} for id_ in acknowledged.values()
                )

            await until(have_all_arrived)

    async def test_kill_9_before_a_webhook_loses_neither_change_nor_webhook(
        self, create_process: ProcessFactory, listener: Listener
    ) -> None:
        child, merchant = create_process(sandbox_webhook_url=listener.url)
        await child.start()
        paid = await merchant.create_payment(APPROVED, "capture")  # the listener has not started
        child.kill()
        await child.wait()
        async with listener.listening():
            await child.start()
            assert await merchant.payment(paid["id"]) == paid

            async def have_both_arrived() -> bool:
                return set(listener.received_statuses(paid["id"])) == {"AUTHORIZED", "CAPTURED"}

            await until(have_both_arrived)
