"""Set-up of a run: retries, refusals and unavailable systems, tested with a real server with scripted responses."""

import asyncio
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kit.http.server import http_server
from loadtests import __main__, customers, report, run
from loadtests.__main__ import parse_arguments
from loadtests.customers import CustomerApi, SetUpError
from loadtests.history.storage import HistoryWriter
from loadtests.plan import Customer
from loadtests.run import COULD_NOT_RUN, check_ledger
from loadtests.target import Target
from stack.ports import free_ports
from stack.process import ROOT

ACCOUNT = str(UUID(int=3))
REGISTER, LOGIN, ACCOUNTS, TOP_UP = "/auth/register", "/auth/login", "/accounts", f"/accounts/{ACCOUNT}/topup"
CLOSED = "http://127.0.0.1:9"


class FakeWallet:
    """Server that responds like the gateway of a wallet.

    Attributes:
        scripted: responses by path that are returned before the usual ones, in their order.
        requests: received requests: path, `Idempotency-Key` and body.
        received: released once for each received request.
    """

    def __init__(self) -> None:
        self.scripted: dict[str, deque[Response]] = {}
        self.requests: list[tuple[str, str | None, Any]] = []
        self.received = asyncio.Semaphore(0)
        self.url = ""
        token = jwt.encode({"iss": "issuer", "sub": "subject"}, "x" * 32)
        top_up = {"id": str(UUID(int=1)), "status": "COMPLETED", "transferId": str(UUID(int=2))}
        self._usual = {
            REGISTER: JSONResponse({}, 201),
            LOGIN: JSONResponse({"accessToken": token}),
            ACCOUNTS: JSONResponse({"id": ACCOUNT}, 201),
            TOP_UP: JSONResponse(top_up, 202),
        }

    async def handle(self, request: Request) -> Response:
        path = request.url.path
        if request.method == "GET":
            return PlainTextResponse("nothing here", 404)
        self.requests.append((path, request.headers.get("idempotency-key"), await request.json()))
        self.received.release()
        responses = self.scripted.get(path)
        return responses.popleft() if responses else self._usual[path]

    def requests_to(self, path: str) -> list[tuple[str, str | None, Any]]:
        return [each for each in self.requests if each[0] == path]


@pytest.fixture
async def wallet() -> AsyncIterator[FakeWallet]:
    fake, (port,) = FakeWallet(), free_ports(1)
    fake.url = f"http://127.0.0.1:{port}"
    app = Starlette(routes=[Route("/{path:path}", fake.handle, methods=["GET", "POST"])])
    async with http_server(app, f"127.0.0.1:{port}"):
        yield fake


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customers, "_RETRY_DELAY_SECONDS", 0.0)


async def create(url: str, folder: Path, count: int = 1, seconds: float = 120) -> list[Customer]:
    with HistoryWriter(folder) as writer:
        async with CustomerApi(Target(host=url), writer, set_up_seconds=seconds) as api:
            return await api.create_customers(count)


def problem(status: int, code: str, **headers: str) -> Response:
    return JSONResponse({"code": code}, status, headers=headers)


class TestRetries:
    @pytest.mark.parametrize("path", [REGISTER, LOGIN, ACCOUNTS])
    @pytest.mark.parametrize(
        "failure",
        [problem(504, "DEADLINE_EXCEEDED"), problem(503, "UNAVAILABLE"), PlainTextResponse("bad gateway", 502)],
        ids=["504", "503", "502"],
    )
    async def test_temporary_failure_is_retried_with_the_same_key(
        self, wallet: FakeWallet, tmp_path: Path, path: str, failure: Response
    ) -> None:
        wallet.scripted[path] = deque([failure, failure])
        (customer,) = await create(wallet.url, tmp_path)
        assert customer.account == ACCOUNT
        first, *repeats = wallet.requests_to(path)
        assert repeats == [first, first]

    async def test_name_taken_by_an_earlier_attempt_is_accepted(self, wallet: FakeWallet, tmp_path: Path) -> None:
        wallet.scripted[REGISTER] = deque([problem(504, "DEADLINE_EXCEEDED"), problem(409, "USERNAME_TAKEN")])
        await create(wallet.url, tmp_path)
        assert len(wallet.requests_to(LOGIN)) == 1

    async def test_name_taken_at_the_first_attempt_is_an_error(self, wallet: FakeWallet, tmp_path: Path) -> None:
        wallet.scripted[REGISTER] = deque([problem(409, "USERNAME_TAKEN")])
        with pytest.raises(SetUpError, match="returned 409 USERNAME_TAKEN"):
            await create(wallet.url, tmp_path)

    async def test_retries_end_when_the_next_would_be_too_late(self, wallet: FakeWallet, tmp_path: Path) -> None:
        overloaded = problem(429, "RATE_LIMITED", **{"Retry-After": "121"})
        wallet.scripted[REGISTER] = deque([overloaded])
        with pytest.raises(
            SetUpError, match="returned 429 RATE_LIMITED, and no request of the set-up succeeded for 120 s"
        ):
            await create(wallet.url, tmp_path)

    async def test_retries_continue_while_other_requests_succeed(
        self, wallet: FakeWallet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 0.0

        async def skip(seconds: float) -> None:
            nonlocal now
            now += seconds

        monkeypatch.setattr(customers, "time", SimpleNamespace(monotonic=lambda: now))
        monkeypatch.setattr(customers, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": skip}))
        for path in (REGISTER, LOGIN, ACCOUNTS):
            wallet.scripted[path] = deque([problem(429, "RATE_LIMITED", **{"Retry-After": "100"})])
        await create(wallet.url, tmp_path)
        assert now == 300

    async def test_top_up_without_an_outcome_fails_the_set_up(self, wallet: FakeWallet, tmp_path: Path) -> None:
        wallet.scripted[TOP_UP] = deque([problem(503, "UNAVAILABLE")] * 100_000)
        with pytest.raises(SetUpError, match=r"could not be topped up within 0\.01 s"):
            await create(wallet.url, tmp_path, seconds=0.01)


class TestRefusals:
    async def test_unreachable_host_is_reported_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(SetUpError, match=r"\): start the system, or correct --host"):
            await create(CLOSED, tmp_path)

    async def test_refused_request_is_reported_once_for_many_customers(
        self, wallet: FakeWallet, tmp_path: Path
    ) -> None:
        wallet.scripted[REGISTER] = deque([PlainTextResponse("no such page", 404)] * 20)
        with pytest.raises(SetUpError, match="/auth/register returned 404"):
            await create(wallet.url, tmp_path, count=20)

    @pytest.mark.parametrize(
        ("path", "response"),
        [
            (REGISTER, PlainTextResponse("<html>welcome</html>")),
            (LOGIN, JSONResponse(["a", "list"])),
            (LOGIN, JSONResponse({})),
            (LOGIN, JSONResponse({"accessToken": "no token"})),
            (ACCOUNTS, JSONResponse({"id": "no id"}, 201)),
            (TOP_UP, JSONResponse({"status": "COMPLETED"}, 202)),
            (TOP_UP, JSONResponse("text", 202)),
        ],
    )
    async def test_response_of_another_service_is_reported(
        self, wallet: FakeWallet, tmp_path: Path, path: str, response: Response
    ) -> None:
        wallet.scripted[path] = deque([response])
        with pytest.raises(SetUpError, match="does not respond like the REST API of a wallet: correct --host"):
            await create(wallet.url, tmp_path)


class TestLedger:
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://user:hidden@127.0.0.1:9/bank",
            "postgresql://user:hidden@127.0.0.1:port/bank",
            "postgresql://user:hidden@no-such-host.invalid/bank",
        ],
    )
    async def test_ledger_that_cannot_be_read_is_reported_without_its_password(self, url: str) -> None:
        with pytest.raises(SetUpError, match="the ledger's database cannot be read") as caught:
            await check_ledger(Target(host=CLOSED, ledger=url))
        assert "hidden" not in str(caught.value)

    async def test_wrong_data_folder_of_a_running_system_is_named_instead_of_an_option_that_was_not_given(
        self, tmp_path: Path
    ) -> None:
        target = Target(host=CLOSED, ledger="postgresql://bank:x@127.0.0.1:9/bank", data=tmp_path)
        with pytest.raises(SetUpError, match=f"is {tmp_path} the data folder of .* Name the right one with --data$"):
            await check_ledger(target)


class TestDataFolder:
    async def test_folder_without_a_system_is_refused_and_not_created(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("stack.running.tempfile.gettempdir", lambda: str(tmp_path))
        monkeypatch.setattr(run, "REPORTS", tmp_path / "reports")
        data = tmp_path / "typo"
        assert await __main__.run(parse_arguments(["--port", "9310", "--data", str(data)])) == COULD_NOT_RUN
        assert not data.exists()
        assert "could not run: no wallet runs on this machine" in capsys.readouterr().err


class TestExitCode:
    async def test_run_that_cannot_start_has_its_own_exit_code(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(run, "REPORTS", tmp_path)
        for arguments in (["--host", CLOSED], ["--host", CLOSED, "--ui"]):
            assert await __main__.run(parse_arguments(arguments)) == COULD_NOT_RUN == 3
            assert capsys.readouterr().err.startswith(f"could not run: no response from {CLOSED}")

    async def test_folder_of_the_results_that_cannot_be_created_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setattr(run, "REPORTS", tmp_path / "file")
        assert await __main__.run(parse_arguments(["--host", CLOSED])) == COULD_NOT_RUN
        assert "the folder of the results cannot be created" in capsys.readouterr().err

    @pytest.mark.slow
    async def test_ctrl_c_ends_a_run_without_a_traceback(self, wallet: FakeWallet, tmp_path: Path) -> None:
        wallet.scripted[REGISTER] = deque([problem(503, "UNAVAILABLE", **{"Retry-After": "30"})] * 2)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadtests", "--host", wallet.url, "--customers", "2"),
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            # A shell starts background commands with SIGINT ignored, and their child processes inherit this.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        for _ in range(2):
            await wallet.received.acquire()
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        assert (process.returncode, errors.decode()) == (130, "stopped by Ctrl-C or SIGTERM, without a verdict\n")


def test_runs_of_the_same_second_have_different_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "REPORTS", tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "2026-11-21T00-00-00")
    names = [run.create_report_folder(name).name for name in ("", "", "faults")]
    assert names == ["2026-11-21T00-00-00", "2026-11-21T00-00-00-2", "2026-11-21T00-00-00-faults"]


@pytest.mark.parametrize(
    ("outcome", "message"),
    [(None, "has no completed run"), ('{"verdict": "SOUND"}', "no report of"), ("[", "no report of")],
)
def test_missing_and_unreadable_runs_have_no_report(
    outcome: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if outcome is not None:
        (tmp_path / run.FILE).write_text(outcome)
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    assert report.main() == 1
    assert message in capsys.readouterr().err
