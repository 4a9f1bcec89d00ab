"""`python -m sandbox`, as it ships."""

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
from tests.integration.sandbox.running import APPROVED, Listener, Merchant, code, environment_of, process
from tests.waiting import until

pytestmark = pytest.mark.slow

Describe = Callable[..., tuple[Child, Merchant]]


@pytest.fixture
async def describe(tmp_path: Path) -> AsyncIterator[Describe]:
    """Describes sandboxes on one pair of books, each a process of its own that is gone when the test ends."""
    made: list[tuple[Child, Merchant]] = []

    def describe(**given: object) -> tuple[Child, Merchant]:
        child, url = process(tmp_path, **given)
        made.append((child, Merchant(url)))
        return made[-1]

    yield describe
    for child, merchant in made:
        await merchant.http.aclose()
        await child.stop()


class TestStart:
    async def test_is_refused_unless_it_is_said_that_this_is_not_production(self, describe: Describe) -> None:
        child, _ = describe(sandbox_is_not_production="1")
        await child.spawn()
        assert await child.wait() == 2
        (sentence,) = child.last_lines
        assert "SANDBOX_IS_NOT_PRODUCTION=true" in sentence

    def test_needs_a_secret_to_sign_webhooks_with(self, tmp_path: Path) -> None:
        url = "http://127.0.0.1:1/webhooks"
        environment = environment_of(tmp_path, sandbox_webhook_url=url, sandbox_webhook_secret=None)
        with pytest.raises(ValidationError, match="SANDBOX_WEBHOOK_URL needs SANDBOX_WEBHOOK_SECRET"):
            Settings.model_validate(environment)

    async def test_it_says_what_it_is(self, merchant: Merchant) -> None:
        page = await merchant.http.get("/")
        assert "sandbox" in page.json()["what"]
        assert [(card["number"], card["meaning"]) for card in page.json()["cards"]] == [
            (number, behaviour.meaning) for number, behaviour in CARDS.items()
        ]
        for answer in (page, await merchant.http.get("/v1/payments/pay_unknown")):
            assert (answer.headers["server"], answer.headers["x-sandbox"]) == ("sandbox-acquirer", "true")


class TestEnd:
    async def test_no_silence_keeps_it(self, describe: Describe) -> None:
        child, merchant = describe(sandbox_timeout_seconds=60, sandbox_late_seconds=60)
        await child.start()
        silent = [
            number for number, each in CARDS.items() if each.name in {"authorize-timeout-before", "authorize-late"}
        ]
        tokens = [await merchant.token(number) for number in silent]

        async def insist(token: str) -> httpx.Response:
            while code(answer := await merchant.authorize(token, token, patience=60)) == "KEY_IN_USE":
                pass  # a probe was at work
            return answer

        asked = [asyncio.create_task(insist(token)) for token in tokens]

        async def all_are_at_work() -> bool:
            probes = [await merchant.change("capture", "none", token) for token in tokens]
            return {code(probe) for probe in probes} == {"KEY_IN_USE"}

        await until(all_are_at_work)
        child.send(signal.SIGTERM)
        assert {code(answer) for answer in await asyncio.gather(*asked)} == {"UNAVAILABLE"}
        async with asyncio.timeout(4):
            assert await child.wait() == 0
        assert any("this is a sandbox acquirer" in line for line in child.last_lines)
        assert not any('"level": "error"' in line for line in child.last_lines)


def everything_in(folder: Path) -> str:
    return b"".join(file.read_bytes() for file in folder.iterdir()).decode(errors="replace")


class TestSecrets:
    async def test_no_number_and_no_code_is_kept_or_logged(self, describe: Describe, tmp_path: Path) -> None:
        lines: list[str] = []
        child, merchant = describe(log_level="DEBUG")
        child._output = lambda _, line: lines.append(line)
        amex, cvv = "378282246310005", "8273"
        async with child:
            token = (await merchant.tokenize(amex, cvv=cvv)).json()["token"]
            await merchant.tokenize(amex, cvv=cvv + "1")
            await merchant.tokenize(amex, cvv=cvv, expiryMonth=13)
            await merchant.authorize(token, "key")
            kept = everything_in(tmp_path)
        said = "\n".join(lines)
        assert '"/v1/tokens"' in said
        assert token in kept
        for text in (said, kept):
            assert amex not in text
            assert not re.search(rf"\b{cvv}\b", text)


class TestKill9:
    async def test_in_the_middle_of_load_loses_no_answer_and_no_webhook(
        self, describe: Describe, listener: Listener
    ) -> None:
        child, merchant = describe(sandbox_webhook_url=listener.url)
        await child.start()
        token = await merchant.token(APPROVED)
        acknowledged: dict[str, str] = {}
        enough = asyncio.Event()

        async def insist(n: int) -> None:
            """Ten payments one after the other, each asked for with its key until it is captured."""
            for key in (f"{n}-{turn}" for turn in range(10)):
                while key not in acknowledged:
                    with suppress(httpx.TransportError):
                        made = await merchant.authorize(token, key)
                        taken = await merchant.change("capture", made.json()["id"], f"{key}:c")
                        acknowledged[key] = taken.json()["id"]
                        if len(acknowledged) == 30:
                            enough.set()

        async with listener.listening():
            load = asyncio.gather(*(insist(n) for n in range(10)))
            await enough.wait()
            child.kill()
            assert await child.wait() == -signal.SIGKILL
            known = dict(acknowledged)
            assert len(known) < 100
            await child.start()
            async with asyncio.timeout(20):
                await load
            assert known.items() <= acknowledged.items()
            made = (await merchant.http.get("/v1/payments", params={"limit": 1000})).json()["payments"]
            assert {payment["idempotencyKey"]: payment["id"] for payment in made} == acknowledged
            assert {payment["status"] for payment in made} == {"CAPTURED"}

            async def all_are_told() -> bool:
                return all(set(listener.told(id_)) == {"AUTHORIZED", "CAPTURED"} for id_ in acknowledged.values())

            await until(all_are_told)

    async def test_between_a_change_and_its_webhook_loses_neither(self, describe: Describe, listener: Listener) -> None:
        child, merchant = describe(sandbox_webhook_url=listener.url)
        await child.start()
        paid = await merchant.paid(APPROVED, "capture")  # nobody listens yet
        child.kill()
        await child.wait()
        async with listener.listening():
            await child.start()
            assert await merchant.payment(paid["id"]) == paid

            async def both_are_told() -> bool:
                return set(listener.told(paid["id"])) == {"AUTHORIZED", "CAPTURED"}

            await until(both_are_told)
