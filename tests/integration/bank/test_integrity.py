"""The ledger proved while it is in use; and a ledger corrupted in every way there is, each of them told by name."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import httpx
import orjson
import pytest
from uuid_utils.compat import uuid7

from kit.proof import Integrity, Progress, Report, Verdict, Violation
from stack.ports import free_ports
from stack.postgres import Postgres
from stack.process import ROOT
from subgraphs.bank import integrity
from subgraphs.bank.domain import Command, Key, Kind, Transfer
from subgraphs.bank.integrity import ledger_integrity
from subgraphs.bank.ledger import Ledger
from subgraphs.bank.repository.database import open_pool
from subgraphs.bank.repository.proof import Law
from tests.integration.bank.running import RunningBank, clearing, cloned, prove, rub
from tests.waiting import until
from wallet.errors import InsufficientFunds
from wallet.money import Money

ALICE, BOB, CAROL, DAVE = UUID(int=0), UUID(int=2**128 - 1), UUID(int=3), UUID(int=4)
ACCOUNTS = {"alice": ALICE, "bob": BOB, "carol": CAROL, "dave": DAVE, "rub": clearing("RUB"), "usd": clearing("USD")}
STRAY = UUID(int=9)
TABLES = ("accounts", "transfers", "entries", "idempotency_keys", "outbox")
NOTHING = "0 entries, 0 transfers, 0 idempotency_keys, 0 outbox"
PRINCIPAL = "https://users.test|a-secret"


async def reports(proof: Integrity) -> list[Report]:
    async with aclosing(proof.prove()) as proving:
        return [report async for report in proving]


async def verdict(proof: Integrity) -> Verdict:
    last = (await reports(proof))[-1]
    assert isinstance(last, Verdict)
    return last


@dataclass(frozen=True)
class Written:
    """A small ledger, and a copy of its rows: Alice, Bob and Dave in roubles, Carol in dollars, transfers k1 to k5.

    k1: Alice → Bob · k2: Alice → Bob · k3: Bob → Alice · k4: deposit to Alice · k5: deposit to Carol · one was refused
    """

    pool: asyncpg.Pool
    names: dict[str, str]

    async def corrupt(self, *statements: str) -> asyncpg.Pool:
        """The ledger as it was written, after somebody has laid hands on it who may do everything."""
        async with self.pool.acquire() as superuser, superuser.transaction():
            await superuser.execute("SET session_replication_role = replica")  # no trigger is in the way
            for table in TABLES:
                await superuser.execute(f"DELETE FROM {table}")
                await superuser.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM pristine.{table}")
            for statement in statements:
                await superuser.execute(statement.format(**{name: f"'{id_}'" for name, id_ in ACCOUNTS.items()}))
        return self.pool

    def told(self, violation: Violation) -> str:
        """The law and the row, as a person would call it."""
        row = {name: self.names.get(str(value), str(value)) for name, value in violation.row.items()}
        match row:
            case {"account_id": account, "version": version}:
                return f"{violation.law} {account}/{version}"
            case {"key": key}:
                return f"{violation.law} {key}"
            case {"transfer_id": transfer}:
                return f"{violation.law} {transfer}"
            case _:
                (value,) = row.values()
                return f"{violation.law} {value}"


@pytest.fixture(scope="module")
async def written(postgres: Postgres, ledger_template: str) -> AsyncIterator[Written]:
    async with cloned(postgres, ledger_template) as url, open_pool(url, max_size=2) as pool:
        await pool.execute("""
            DELETE FROM accounts WHERE currency NOT IN ('RUB', 'USD');
            ALTER TABLE accounts DROP CONSTRAINT accounts_min_balance, DROP CONSTRAINT accounts_closed_empty;
        """)
        await pool.executemany(
            "INSERT INTO accounts (id, owner_id, currency, balance) VALUES ($1, 'a-secret', $2, $3)",
            [(ALICE, "RUB", 100), (BOB, "RUB", 50), (CAROL, "USD", 0), (DAVE, "RUB", 0)],
        )
        ledger = Ledger(pool, on_commit=lambda: None)
        names = {str(STRAY): "stray"} | {str(id_): name for name, id_ in ACCOUNTS.items()}
        for key, sender, recipient, amount in (
            ("k1", ALICE, BOB, rub("10")),
            ("k2", ALICE, BOB, rub("20")),
            ("k3", BOB, ALICE, rub("5")),
            ("k4", clearing("RUB"), ALICE, rub("7")),
            ("k5", clearing("USD"), CAROL, Money.parse("3", "USD")),
        ):
            (outcome,) = await ledger.commit([command(key, sender, recipient, amount)])
            assert isinstance(outcome, Transfer)
            names[str(outcome.id)] = key
        (refused,) = await ledger.commit([command("refused", ALICE, BOB, rub("10000"))])
        assert isinstance(refused, InsufficientFunds)
        await pool.execute("CREATE SCHEMA pristine")
        for table in TABLES:
            await pool.execute(f"CREATE TABLE pristine.{table} AS TABLE {table}")
        yield Written(pool, names)


def command(key: str, sender: UUID, recipient: UUID, amount: Money) -> Command:
    kind = Kind.DEPOSIT if sender in {clearing("RUB"), clearing("USD")} else Kind.TRANSFER
    scope = Key(PRINCIPAL, kind.lower(), key)
    return Command(uuid7(), kind, sender, recipient, amount, scope, None, {})


def made(key: str) -> str:
    return f"(SELECT id FROM transfers WHERE idempotency_key = '{key}')"


CORRUPTIONS: dict[str, tuple[list[str], set[str]]] = {
    "a balance changed": (
        ["UPDATE accounts SET balance = balance + 1 WHERE id = {alice}"],
        {"BALANCE_IS_LAST_ENTRY alice", "TOTAL_IS_CONSERVED RUB"},
    ),
    "money moved from balance to balance": (
        [
            "UPDATE accounts SET balance = balance + 1 WHERE id = {alice}",
            "UPDATE accounts SET balance = balance - 1 WHERE id = {bob}",
        ],
        {"BALANCE_IS_LAST_ENTRY alice", "BALANCE_IS_LAST_ENTRY bob"},
    ),
    "an account's version moved": (
        ["UPDATE accounts SET version = 9 WHERE id = {alice}"],
        {"VERSION_IS_LAST_ENTRY alice"},
    ),
    "an opening balance changed": (
        ["UPDATE accounts SET opening_balance = 101 WHERE id = {alice}"],
        {"BALANCE_ADDS_UP alice/1", "TOTAL_IS_CONSERVED RUB"},
    ),
    "the opening balance of an account without entries changed": (
        ["UPDATE accounts SET opening_balance = 1 WHERE id = {dave}"],
        {"BALANCE_IS_LAST_ENTRY dave", "TOTAL_IS_CONSERVED RUB"},
    ),
    "an account's currency changed": (
        ["UPDATE accounts SET currency = 'EUR' WHERE id = {carol}"],
        {"CURRENCY_IS_ACCOUNTS carol/1", "TOTAL_IS_CONSERVED USD", "TOTAL_IS_CONSERVED EUR"},
    ),
    "an account vanished": (
        ["DELETE FROM accounts WHERE id = {bob}"],
        {
            "ENTRY_HAS_ACCOUNT bob/1",
            "ENTRY_HAS_ACCOUNT bob/2",
            "ENTRY_HAS_ACCOUNT bob/3",
            "TOTAL_IS_CONSERVED RUB",
        },
    ),
    "a balance below its floor": (
        ["UPDATE accounts SET min_balance = 1000 WHERE id = {alice}"],
        {"BALANCE_ABOVE_FLOOR alice"},
    ),
    "a closed account that holds money": (
        ["UPDATE accounts SET status = 'CLOSED' WHERE id = {bob}"],
        {"CLOSED_IS_EMPTY bob"},
    ),
    "the first entry deleted": (
        ["DELETE FROM entries WHERE account_id = {alice} AND version = 1"],
        {"VERSIONS_HAVE_NO_GAP alice/2", "TRANSFER_HAS_ENTRIES k1"},
    ),
    "an entry in the middle deleted": (
        ["DELETE FROM entries WHERE account_id = {alice} AND version = 2"],
        {"VERSIONS_HAVE_NO_GAP alice/3", "TRANSFER_HAS_ENTRIES k2"},
    ),
    "the last entry deleted": (
        ["DELETE FROM entries WHERE account_id = {alice} AND version = 4"],
        {"VERSION_IS_LAST_ENTRY alice", "BALANCE_IS_LAST_ENTRY alice", "TRANSFER_HAS_ENTRIES k4"},
    ),
    "the only entry deleted": (
        ["DELETE FROM entries WHERE account_id = {carol}"],
        {"VERSION_IS_LAST_ENTRY carol", "BALANCE_IS_LAST_ENTRY carol", "TRANSFER_HAS_ENTRIES k5"},
    ),
    "an entry's amount changed": (
        ["UPDATE entries SET amount = -21 WHERE account_id = {alice} AND version = 2"],
        {"BALANCE_ADDS_UP alice/2", "TRANSFER_NETS_TO_ZERO k2"},
    ),
    "an entry's balance changed": (
        ["UPDATE entries SET balance_after = 71 WHERE account_id = {alice} AND version = 2"],
        {"BALANCE_ADDS_UP alice/2", "BALANCE_ADDS_UP alice/3"},
    ),
    "the last entry's balance changed": (
        ["UPDATE entries SET balance_after = 83 WHERE account_id = {alice} AND version = 4"],
        {"BALANCE_ADDS_UP alice/4", "BALANCE_IS_LAST_ENTRY alice"},
    ),
    "money made by an entry and the balance alike": (
        [
            "UPDATE entries SET amount = 8, balance_after = 83 WHERE account_id = {alice} AND version = 4",
            "UPDATE accounts SET balance = 83 WHERE id = {alice}",
        ],
        {"TRANSFER_NETS_TO_ZERO k4", "TOTAL_IS_CONSERVED RUB"},
    ),
    "an entry's version moved": (
        ["UPDATE entries SET version = 6 WHERE account_id = {alice} AND version = 4"],
        {
            "VERSIONS_HAVE_NO_GAP alice/6",
            "ENTRY_IS_OF_TRANSFER alice/6",
            "VERSION_IS_LAST_ENTRY alice",
            "TRANSFER_HAS_ENTRIES k4",
        },
    ),
    "an entry moved to another account": (
        ["UPDATE entries SET account_id = {dave} WHERE account_id = {carol}"],
        {
            "VERSION_IS_LAST_ENTRY carol",
            "BALANCE_IS_LAST_ENTRY carol",
            "VERSION_IS_LAST_ENTRY dave",
            "BALANCE_IS_LAST_ENTRY dave",
            "ENTRY_IS_OF_TRANSFER dave/1",
            "CURRENCY_IS_ACCOUNTS dave/1",
            "TRANSFER_HAS_ENTRIES k5",
        },
    ),
    "an entry of another transfer": (
        [f"UPDATE entries SET transfer_id = {made('k2')} WHERE account_id = {{alice}} AND version = 1"],
        {"ENTRY_IS_OF_TRANSFER alice/1", "TRANSFER_HAS_ENTRIES k1"},
    ),
    "an entry twice": (
        [
            """
            INSERT INTO entries SELECT account_id, 5, transfer_id, amount, balance_after + amount FROM entries
            WHERE account_id = {alice} AND version = 4
            """,
        ],
        {"ENTRY_IS_OF_TRANSFER alice/5", "VERSION_IS_LAST_ENTRY alice", "BALANCE_IS_LAST_ENTRY alice"},
    ),
    "a transfer vanished": (
        [f"DELETE FROM transfers WHERE id = {made('k2')}"],
        {"ENTRY_HAS_TRANSFER alice/2", "ENTRY_HAS_TRANSFER bob/2", "KEY_HAS_TRANSFER k2", "OUTBOX_HAS_TRANSFER k2"},
    ),
    "a transfer vanished with all that speaks of it": (
        [
            f"DELETE FROM idempotency_keys WHERE transfer_id = {made('k5')}",
            f"DELETE FROM outbox WHERE transfer_id = {made('k5')}",
            f"DELETE FROM entries WHERE transfer_id = {made('k5')}",
            f"DELETE FROM transfers WHERE id = {made('k5')}",
        ],
        {
            "VERSION_IS_LAST_ENTRY carol",
            "BALANCE_IS_LAST_ENTRY carol",
            "VERSION_IS_LAST_ENTRY usd",
            "BALANCE_IS_LAST_ENTRY usd",
        },
    ),
    "a transfer's amount changed": (
        [f"UPDATE transfers SET amount = 21 WHERE id = {made('k2')}"],
        {"TRANSFER_NETS_TO_ZERO k2"},
    ),
    "a transfer's currency changed": (
        [f"UPDATE transfers SET currency = 'EUR' WHERE id = {made('k5')}"],
        {"CURRENCY_IS_ACCOUNTS usd/1", "CURRENCY_IS_ACCOUNTS carol/1"},
    ),
    "a transfer's version moved": (
        [f"UPDATE transfers SET sender_version = 9 WHERE id = {made('k2')}"],
        {"TRANSFER_HAS_ENTRIES k2", "ENTRY_IS_OF_TRANSFER alice/2"},
    ),
    "a transfer's recipient changed": (
        [f"UPDATE transfers SET recipient_id = {{dave}} WHERE id = {made('k2')}"],
        {"TRANSFER_HAS_ENTRIES k2", "ENTRY_IS_OF_TRANSFER bob/2"},
    ),
    "a transfer turned round": (
        [
            f"""
            UPDATE transfers SET sender_id = recipient_id, recipient_id = sender_id,
                sender_version = recipient_version, recipient_version = sender_version WHERE id = {made("k3")}
            """,
        ],
        {"ENTRY_IS_OF_TRANSFER alice/3", "ENTRY_IS_OF_TRANSFER bob/3", "TRANSFER_NETS_TO_ZERO k3"},
    ),
    "a transfer dated before an earlier one": (
        [f"UPDATE transfers SET created_at = created_at - interval '1 h' WHERE id = {made('k3')}"],
        {"TIME_FOLLOWS_VERSION alice/3", "TIME_FOLLOWS_VERSION bob/3"},
    ),
    "a transfer out of nothing": (
        [
            f"""
            INSERT INTO transfers (id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
                                   sender_version, recipient_version)
            VALUES ('{STRAY}', 'TRANSFER', {{alice}}, {{bob}}, 1, 'RUB', now(), 'stray', 5, 4)
            """,
        ],
        {"TRANSFER_HAS_ENTRIES stray", "TRANSFER_HAS_ONE_KEY stray"},
    ),
    "a key deleted": (
        ["DELETE FROM idempotency_keys WHERE key = 'k1'"],
        {"TRANSFER_HAS_ONE_KEY k1"},
    ),
    "a key in another scope too": (
        [
            """
            INSERT INTO idempotency_keys
            SELECT 'mallory', operation, key, fingerprint, transfer_id FROM idempotency_keys WHERE key = 'k1'
            """,
        ],
        {"TRANSFER_HAS_ONE_KEY k1"},
    ),
    "a key that points elsewhere": (
        [f"UPDATE idempotency_keys SET transfer_id = {made('k2')} WHERE key = 'k1'"],
        {"KEY_IS_OF_TRANSFER k1", "TRANSFER_HAS_ONE_KEY k1", "TRANSFER_HAS_ONE_KEY k2"},
    ),
    "a key that points to nothing": (
        [f"UPDATE idempotency_keys SET transfer_id = '{STRAY}' WHERE key = 'k1'"],
        {"KEY_HAS_TRANSFER k1", "TRANSFER_HAS_ONE_KEY k1"},
    ),
    "a key renamed": (
        ["UPDATE idempotency_keys SET key = 'other' WHERE key = 'k1'"],
        {"KEY_IS_OF_TRANSFER other"},
    ),
    "a key whose outcome became a refusal": (
        ["UPDATE idempotency_keys SET transfer_id = NULL, refusal = '{{}}' WHERE key = 'k1'"],
        {"TRANSFER_HAS_ONE_KEY k1"},
    ),
    "an event of nothing": (
        [f"INSERT INTO outbox (transfer_id) VALUES ('{STRAY}')"],
        {"OUTBOX_HAS_TRANSFER stray"},
    ),
}


class TestCorrupted:
    @pytest.mark.parametrize("corruption", CORRUPTIONS)
    async def test_is_told_by_law_and_row_however_the_pages_fall(self, written: Written, corruption: str) -> None:
        statements, expected = CORRUPTIONS[corruption]
        pool = await written.corrupt(*statements)
        for page in (1, 2, 3, 2000):
            *found, last = await reports(ledger_integrity(pool, page))
            violations = [report for report in found if isinstance(report, Violation)]
            assert {written.told(violation) for violation in violations} == expected, page
            assert isinstance(last, Verdict)
            assert (last.verdict, last.violations) == ("broken", len(violations))
            assert "secret" not in repr((found, last))

    def test_each_law_can_be_broken(self) -> None:
        assert {told.split()[0] for _, expected in CORRUPTIONS.values() for told in expected} == set(Law)

    async def test_what_was_found_and_what_was_expected_are_told(self, written: Written) -> None:
        statement = "UPDATE accounts SET balance = 1 WHERE id = {alice}"
        pool = await written.corrupt(statement)
        (found, _) = [report for report in await reports(ledger_integrity(pool)) if isinstance(report, Violation)]
        assert found == Violation(Law.BALANCE_IS_LAST_ENTRY, {"account_id": str(ALICE)}, "1.0000", "82.0000")

    async def test_a_hundred_rows_of_a_law_are_told_and_the_others_counted(self, written: Written) -> None:
        events = f"INSERT INTO outbox (transfer_id) SELECT '{STRAY}' FROM generate_series(1, 130)"
        *found, last = await reports(ledger_integrity(await written.corrupt(events), 50))
        assert sum(isinstance(report, Violation) for report in found) == 100
        assert isinstance(last, Verdict)
        assert (last.violations, last.broken) == (130, {Law.OUTBOX_HAS_TRANSFER: 130})

    async def test_transfers_too_many_to_be_named_are_told_by_the_end_of_their_ids(
        self, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(integrity, "_NAMED", 0)
        pool = await written.corrupt("DELETE FROM idempotency_keys WHERE key = 'k1'")
        (found,) = [report for report in await reports(ledger_integrity(pool)) if isinstance(report, Violation)]
        (k1,) = [id_ for id_, name in written.names.items() if name == "k1"]
        assert found.row == {"transfer_id": f"…{k1[-3:]}"}


class TestSound:
    @pytest.mark.parametrize("page", [1, 2, 3, 2000])
    async def test_is_said_of_a_ledger_that_was_seen_whole(self, written: Written, page: int) -> None:
        *found, last = await reports(ledger_integrity(await written.corrupt(), page))
        assert isinstance(last, Verdict)
        assert (last.verdict, last.violations) == ("sound", 0)
        assert last.rows == {"accounts": 6, "entries": 10, "transfers": 5, "idempotency_keys": 6, "outbox": 5}
        walked = {report.walk: report for report in found if isinstance(report, Progress)}
        assert {walk: report.rows for walk, report in walked.items()} == last.rows
        assert walked["entries"].verified_up_to == f"{BOB}/3"
        assert walked["idempotency_keys"].verified_up_to == "transfer/refused"

    async def test_is_said_whatever_is_committed_between_two_pages(
        self, own_bank: RunningBank, ledger_url: str
    ) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        accounts = [await bank.open("alice") for _ in range(4)]
        sent = 0
        async with open_pool(ledger_url, max_size=1) as pool, aclosing(ledger_integrity(pool, 10).prove()) as proving:
            async for report in proving:
                if isinstance(report, Progress):
                    sender, recipient = accounts[sent % 4], accounts[(sent + 1) % 4]
                    await alice(bank.client.transfer(sender, recipient, rub("1"), str(sent)))
                    sent += 1
                last = report
        assert isinstance(last, Verdict)
        assert (last.verdict, last.violations) == ("sound", 0)
        assert last.rows["entries"] > 20
        await prove(bank.sql)

    async def test_is_said_again_and_again_under_load(self, own_bank: RunningBank, ledger_url: str) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        accounts = [await bank.open("alice", "5.00") for _ in range(3)]
        sent, verdicts = 0, []

        async def customer(n: int) -> None:
            nonlocal sent
            while sent < 150:
                sent += 1
                sender, recipient = accounts[n % 3], accounts[(n + 1) % 3]
                with suppress(InsufficientFunds):
                    await alice(bank.client.transfer(sender, recipient, rub("1"), str(sent)))

        async with open_pool(ledger_url, max_size=1) as pool:
            customers = asyncio.gather(*(customer(n) for n in range(9)))
            while not customers.done():
                verdicts.append(await verdict(ledger_integrity(pool, 20)))
            await customers
            verdicts.append(await verdict(ledger_integrity(pool, 20)))
        assert len(verdicts) > 2
        assert {(last.verdict, last.violations) for last in verdicts} == {("sound", 0)}
        assert verdicts[0].rows["entries"] < verdicts[-1].rows["entries"]

    async def test_is_said_of_a_transfer_that_is_committed_between_the_walks_over_its_two_ends(
        self, own_bank: RunningBank, ledger_url: str
    ) -> None:
        bank, alice = own_bank, own_bank.user("alice")
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        await bank.sql.execute("""
            CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION hold();
        """)
        await alice(bank.client.transfer(sender, recipient, rub("1"), "before"))
        async with bank.sql.acquire() as other, open_pool(ledger_url, max_size=1) as pool:
            await other.execute("SELECT pg_advisory_lock(42)")
            between = asyncio.create_task(alice(bank.client.transfer(sender, recipient, rub("1"), "between")))
            await until(lambda: waiting(bank.sql, "COMMIT"))
            async with aclosing(ledger_integrity(pool, 1).prove()) as proving:
                async for report in proving:
                    if isinstance(report, Progress) and report.walk == "idempotency_keys" and not between.done():
                        await other.execute("SELECT pg_advisory_unlock(42)")
                        await between
                    last = report
        assert isinstance(last, Verdict)
        assert (last.rows["transfers"], last.rows["idempotency_keys"], last.verdict) == (1, 2, "sound")

    async def test_is_not_said_where_a_statement_cannot_be_run(self, ledger_url: str) -> None:
        async with open_pool(ledger_url, max_size=1) as pool:
            await pool.execute("ALTER TABLE outbox RENAME TO elsewhere")
            last = await verdict(ledger_integrity(pool))
        assert (last.verdict, last.violations) == ("unavailable", 0)


class TestAdmin:
    async def test_tells_line_by_line_and_the_verdict_last(self, own_bank: RunningBank) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            response = await http.get(f"{own_bank.admin}/integrity")
            metrics = (await http.get(f"{own_bank.admin}/metrics")).text
        assert response.headers["content-type"] == "application/x-ndjson"
        first, *_, last = [orjson.loads(line) for line in response.text.splitlines()]
        assert first["progress"]["walk"] == "accounts"
        assert (last["verdict"], last["violations"], last["broken"]) == ("sound", 0, {})
        assert last["seconds"] > 0
        assert "wallet_bank_integrity_violations 0.0" in metrics
        assert "wallet_bank_integrity_finished_seconds 1." in metrics

    async def test_one_proof_runs_at_a_time_and_ends_with_its_client(self, own_bank: RunningBank) -> None:
        async with standing_still(own_bank), httpx.AsyncClient(trust_env=False, base_url=own_bank.admin) as http:
            async with http.stream("GET", "/integrity") as first:
                assert first.status_code == 200
                await until(lambda: waiting(own_bank.sql, "idempotency_keys"))
                second = await http.get("/integrity")
                assert (second.status_code, "is running" in second.json()["detail"]) == (409, True)
                said = await command_line(own_bank.admin)
                assert (said.code, "is running" in said.out[0]) == (2, True)

            async def ended() -> bool:
                async with http.stream("GET", "/integrity") as again:
                    return again.status_code == 200

            await until(ended)

    async def test_a_database_that_goes_away_leaves_no_verdict(self, own_bank: RunningBank) -> None:
        async with standing_still(own_bank):
            proving = asyncio.create_task(command_line(own_bank.admin))
            pid = await until(lambda: waiting(own_bank.sql, "idempotency_keys"))
            assert await own_bank.sql.fetchval("SELECT pg_terminate_backend($1)", pid)
            said = await proving
        assert (said.code, said.out) == (
            2,
            ["not proven: its database, or a service that it asks, went away before the end"],
        )


class TestCommand:
    async def test_says_that_a_ledger_is_sound(self, own_bank: RunningBank) -> None:
        said = await command_line(own_bank.admin)
        (last,) = said.out
        assert (said.code, last[: last.index(" (")]) == (0, f"sound: every law holds of 158 accounts, {NOTHING}")
        assert "accounts: 158 rows, up to " in said.err

    async def test_says_what_is_broken(self, own_bank: RunningBank) -> None:
        account = await own_bank.open("alice", "10.00")
        await own_bank.sql.execute("UPDATE accounts SET balance = 11 WHERE id = $1", account)
        said = await command_line(own_bank.admin)
        assert (said.code, said.out) == (
            1,
            [
                f"BALANCE_IS_LAST_ENTRY: account_id {account}: found 11.0000, expected 10.0000",
                "TOTAL_IS_CONSERVED: currency RUB: found 11.0000, expected 10.0000",
                f"broken: 2 violations (BALANCE_IS_LAST_ENTRY 1, TOTAL_IS_CONSERVED 1) among 159 accounts, {NOTHING}",
            ],
        )

    async def test_does_not_take_silence_for_soundness(self) -> None:
        (port,) = free_ports(1)
        said = await command_line(f"http://127.0.0.1:{port}")
        assert (said.code, said.out[0].split(":")[0]) == (2, "not proven")


@asynccontextmanager
async def standing_still(bank: RunningBank) -> AsyncIterator[None]:
    """As long as the body takes, a proof comes as far as the keys."""
    async with bank.sql.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE")
        yield


async def waiting(sql: asyncpg.Pool, query: str) -> int | None:
    """A session of a bank's that waits for a lock in a query like this."""
    pid: int | None = await sql.fetchval(
        """
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'bank' AND wait_event_type = 'Lock'
              AND query LIKE '%' || $1 || '%'
        LIMIT 1
        """,
        query,
    )
    return pid


@dataclass(frozen=True)
class Said:
    code: int | None
    out: list[str]
    err: str


async def command_line(admin: str) -> Said:
    """As an operator runs it: in a process of its own, which a bank in this one does not log into."""
    program = "from cli.main import app; app()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "integrity", "--admin", admin),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Said(process.returncode, out.decode().splitlines(), err.decode())
