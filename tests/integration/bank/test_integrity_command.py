"""Integrity check over the admin interface and with the command `wallet integrity`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import orjson
import pytest

from kit.auth.principal import Role
from stack.ports import free_ports
from stack.process import ROOT
from tests.integration.bank.harness import RunningBank, admin_client, find_lock_waiter
from tests.waiting import until

NOTHING = "0 entries, 0 transfers, 0 idempotency_keys, 0 transfer_words, 0 outbox"


class TestAdmin:
    async def test_admin_route_streams_progress_and_ends_with_the_verdict(self, own_bank: RunningBank) -> None:
        async with admin_client(own_bank) as http:
            response = await http.get("/integrity")
            metrics = (await http.get("/metrics", headers={"Authorization": ""})).text
        assert response.headers["content-type"] == "application/x-ndjson"
        first, *_, last = [orjson.loads(line) for line in response.text.splitlines()]
        assert first["progress"]["walk"] == "accounts"
        assert (last["verdict"], last["violations"], last["broken"]) == ("sound", 0, {})
        assert last["seconds"] > 0
        assert "wallet_bank_integrity_violations 0.0" in metrics
        assert "wallet_bank_integrity_finished_timestamp_seconds 1." in metrics

    async def test_second_integrity_check_is_refused_until_the_first_client_disconnects(
        self, own_bank: RunningBank
    ) -> None:
        async with block_integrity_checks(own_bank), admin_client(own_bank) as http:
            async with http.stream("GET", "/integrity") as first:
                assert first.status_code == 200
                await until(lambda: find_lock_waiter(own_bank.sql, "idempotency_keys"))
                second = await http.get("/integrity")
                assert (second.status_code, "is running" in second.json()["detail"]) == (409, True)
                result = await run_integrity_command(own_bank)
                assert (result.code, "is running" in result.out[0]) == (2, True)

            async def ended() -> bool:
                async with http.stream("GET", "/integrity") as again:
                    return again.status_code == 200

            await until(ended)

    async def test_lost_database_session_ends_the_command_without_a_verdict(self, own_bank: RunningBank) -> None:
        async with block_integrity_checks(own_bank):
            checking = asyncio.create_task(run_integrity_command(own_bank))
            pid = await until(lambda: find_lock_waiter(own_bank.sql, "idempotency_keys"))
            assert await own_bank.sql.fetchval("SELECT pg_terminate_backend($1)", pid)
            result = await checking
        assert (result.code, result.out) == (
            2,
            ["not proven: the database or another service became unavailable during the check"],
        )


@pytest.mark.slow
class TestCommand:
    async def test_command_reports_a_sound_ledger(self, own_bank: RunningBank) -> None:
        result = await run_integrity_command(own_bank)
        (last,) = result.out
        assert (result.code, last[: last.index(" (")]) == (0, f"sound: all invariants hold for 158 accounts, {NOTHING}")
        assert "accounts: 158 rows, up to " in result.err

    async def test_command_reports_violations(self, own_bank: RunningBank) -> None:
        account = await own_bank.open("alice", "10.00")
        await own_bank.sql.execute("UPDATE accounts SET balance = 11 WHERE id = $1", account)
        result = await run_integrity_command(own_bank)
        assert (result.code, result.out) == (
            1,
            [
                f"BALANCE_IS_LAST_ENTRY: account_id {account}: found 11.0000, expected 10.0000",
                "TOTAL_IS_CONSERVED: currency RUB: found 11.0000, expected 10.0000",
                f"broken: 2 violations (BALANCE_IS_LAST_ENTRY 1, TOTAL_IS_CONSERVED 1) in 159 accounts, {NOTHING}",
            ],
        )

    async def test_command_fails_if_the_bank_is_unreachable(self, own_bank: RunningBank) -> None:
        (port,) = free_ports(1)
        result = await run_integrity_command(replace(own_bank, admin=f"http://127.0.0.1:{port}"))
        assert (result.code, result.out[0].split(":")[0]) == (2, "not proven")

    async def test_command_without_an_admin_token_fails_with_a_hint(self, own_bank: RunningBank) -> None:
        for token, status in (("", 401), (own_bank.keys.user("operator", Role.OPERATOR), 403)):
            result = await run_integrity_command(own_bank, token)
            assert result.code == 2
            assert f"responds with {status}" in result.out[0]
            assert result.out[0].endswith("; pass an admin's token with --token or WALLET_TOKEN")


@asynccontextmanager
async def block_integrity_checks(bank: RunningBank) -> AsyncIterator[None]:
    """Block integrity checks at the scan of `idempotency_keys` until the end of the block."""
    async with bank.sql.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE")
        yield


@dataclass(frozen=True)
class CommandResult:
    code: int | None
    out: list[str]
    err: str


async def run_integrity_command(bank: RunningBank, token: str | None = None) -> CommandResult:
    """Run `wallet integrity` as an admin does, in a child process."""
    token = bank.keys.user("admin", Role.ADMIN) if token is None else token
    program = "from cli.main import app; app()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "integrity", "--admin", bank.admin),
        env=os.environ | {"WALLET_TOKEN": token},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return CommandResult(process.returncode, out.decode().splitlines(), err.decode())
