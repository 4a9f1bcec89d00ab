"""The integrity check reports each corruption of a ledger with the violated invariant and the row."""

import pytest

from kit.integrity.check import Verdict, Violation
from subgraphs.bank.service.adapters.postgres.invariants import Invariant
from subgraphs.bank.service.application import integrity
from subgraphs.bank.service.application.integrity import ledger_integrity
from tests.integration.bank.small_ledger import ALICE, STRAY, SmallLedger, collect_reports


def transfer_with_key(key: str) -> str:
    return f"(SELECT id FROM transfers WHERE idempotency_key = '{key}')"


CORRUPTIONS: dict[str, tuple[list[str], set[str]]] = {
    "a balance changed": (
        ["UPDATE accounts SET balance = balance + 1 WHERE id = {alice}"],
        {"BALANCE_IS_LAST_ENTRY alice", "TOTAL_IS_CONSERVED RUB"},
    ),
    "two balances changed by opposite amounts": (
        [
            "UPDATE accounts SET balance = balance + 1 WHERE id = {alice}",
            "UPDATE accounts SET balance = balance - 1 WHERE id = {bob}",
        ],
        {"BALANCE_IS_LAST_ENTRY alice", "BALANCE_IS_LAST_ENTRY bob"},
    ),
    "an account's version changed": (
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
    "an account deleted": (
        ["DELETE FROM accounts WHERE id = {bob}"],
        {
            "ENTRY_HAS_ACCOUNT bob/1",
            "ENTRY_HAS_ACCOUNT bob/2",
            "ENTRY_HAS_ACCOUNT bob/3",
            "TOTAL_IS_CONSERVED RUB",
        },
    ),
    "a balance below its minimum": (
        ["UPDATE accounts SET min_balance = 1000 WHERE id = {alice}"],
        {"BALANCE_ABOVE_FLOOR alice"},
    ),
    "a closed account that holds money": (
        ["UPDATE accounts SET status = 'CLOSED' WHERE id = {bob}"],
        {"CLOSED_IS_EMPTY bob"},
    ),
    "a change that is not recorded": (
        ["UPDATE accounts SET revision = 1, frozen = 'ALL' WHERE id = {alice}"],
        {"REVISION_IS_LAST_CHANGE alice"},
    ),
    "a state that differs from the recorded one": (
        [
            "UPDATE accounts SET revision = 1, frozen = 'ALL' WHERE id = {alice}",
            """
            INSERT INTO account_changes (account_id, revision, changed_by, action, reason, before, after)
            VALUES ({alice}, 1, 'a', 'FREEZE', 'r', '{{"status": "OPEN"}}',
                    '{{"status": "OPEN", "frozen": "OUTGOING"}}')
            """,
        ],
        {"ACCOUNT_IS_LAST_CHANGE alice"},
    ),
    "a floor that differs from the recorded one": (
        [
            "UPDATE accounts SET revision = 1, min_balance = -1 WHERE id = {alice}",
            """
            INSERT INTO account_changes (account_id, revision, changed_by, action, reason, before, after)
            VALUES ({alice}, 1, 'a', 'SET_FLOOR', 'r', '{{"status": "OPEN"}}', '{{"status": "OPEN", "floor": "-2"}}')
            """,
        ],
        {"FLOOR_IS_LAST_CHANGE alice"},
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
    "an entry's amount and its account's balance increased alike": (
        [
            "UPDATE entries SET amount = 8, balance_after = 83 WHERE account_id = {alice} AND version = 4",
            "UPDATE accounts SET balance = 83 WHERE id = {alice}",
        ],
        {"TRANSFER_NETS_TO_ZERO k4", "TOTAL_IS_CONSERVED RUB"},
    ),
    "an entry's version changed": (
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
    "an entry's transfer changed": (
        [f"UPDATE entries SET transfer_id = {transfer_with_key('k2')} WHERE account_id = {{alice}} AND version = 1"],
        {"ENTRY_IS_OF_TRANSFER alice/1", "TRANSFER_HAS_ENTRIES k1"},
    ),
    "an entry duplicated": (
        [
            """
            INSERT INTO entries SELECT account_id, 5, transfer_id, amount, balance_after + amount FROM entries
            WHERE account_id = {alice} AND version = 4
            """,
        ],
        {"ENTRY_IS_OF_TRANSFER alice/5", "VERSION_IS_LAST_ENTRY alice", "BALANCE_IS_LAST_ENTRY alice"},
    ),
    "a transfer deleted": (
        [f"DELETE FROM transfers WHERE id = {transfer_with_key('k2')}"],
        {"ENTRY_HAS_TRANSFER alice/2", "ENTRY_HAS_TRANSFER bob/2", "KEY_HAS_TRANSFER k2", "OUTBOX_HAS_TRANSFER k2"},
    ),
    "a transfer deleted with its key, outbox row and entries": (
        [
            f"DELETE FROM idempotency_keys WHERE transfer_id = {transfer_with_key('k5')}",
            f"DELETE FROM outbox WHERE transfer_id = {transfer_with_key('k5')}",
            f"DELETE FROM entries WHERE transfer_id = {transfer_with_key('k5')}",
            f"DELETE FROM transfers WHERE id = {transfer_with_key('k5')}",
        ],
        {
            "VERSION_IS_LAST_ENTRY carol",
            "BALANCE_IS_LAST_ENTRY carol",
            "VERSION_IS_LAST_ENTRY usd",
            "BALANCE_IS_LAST_ENTRY usd",
        },
    ),
    "a transfer's amount changed": (
        [f"UPDATE transfers SET amount = 21 WHERE id = {transfer_with_key('k2')}"],
        {"TRANSFER_NETS_TO_ZERO k2"},
    ),
    "a transfer's currency changed": (
        [f"UPDATE transfers SET currency = 'EUR' WHERE id = {transfer_with_key('k5')}"],
        {"CURRENCY_IS_ACCOUNTS usd/1", "CURRENCY_IS_ACCOUNTS carol/1"},
    ),
    "a transfer's sender version changed": (
        [f"UPDATE transfers SET sender_version = 9 WHERE id = {transfer_with_key('k2')}"],
        {"TRANSFER_HAS_ENTRIES k2", "ENTRY_IS_OF_TRANSFER alice/2"},
    ),
    "a transfer's recipient changed": (
        [f"UPDATE transfers SET recipient_id = {{dave}} WHERE id = {transfer_with_key('k2')}"],
        {"TRANSFER_HAS_ENTRIES k2", "ENTRY_IS_OF_TRANSFER bob/2"},
    ),
    "a transfer's sender and recipient exchanged": (
        [
            f"""
            UPDATE transfers SET sender_id = recipient_id, recipient_id = sender_id,
                sender_version = recipient_version, recipient_version = sender_version
            WHERE id = {transfer_with_key("k3")}
            """,
        ],
        {"ENTRY_IS_OF_TRANSFER alice/3", "ENTRY_IS_OF_TRANSFER bob/3", "TRANSFER_NETS_TO_ZERO k3"},
    ),
    "a transfer dated before an earlier one": (
        [f"UPDATE transfers SET created_at = created_at - interval '1 h' WHERE id = {transfer_with_key('k3')}"],
        {"TIME_FOLLOWS_VERSION alice/3", "TIME_FOLLOWS_VERSION bob/3"},
    ),
    "a transfer dated in the future": (
        [f"UPDATE transfers SET created_at = created_at + interval '400 d' WHERE id = {transfer_with_key('k5')}"],
        {"TRANSFER_NOT_IN_FUTURE k5"},
    ),
    "an account's last update dated in the future": (
        ["UPDATE accounts SET updated_at = updated_at + interval '400 d' WHERE id = {carol}"],
        {"ACCOUNT_NOT_IN_FUTURE carol"},
    ),
    "a transfer without entries and key": (
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
    "a key copied to another principal": (
        [
            """
            INSERT INTO idempotency_keys
            SELECT 'mallory', operation, key, fingerprint, transfer_id FROM idempotency_keys WHERE key = 'k1'
            """,
        ],
        {"TRANSFER_HAS_ONE_KEY k1"},
    ),
    "a key of another transfer": (
        [f"UPDATE idempotency_keys SET transfer_id = {transfer_with_key('k2')} WHERE key = 'k1'"],
        {"KEY_IS_OF_TRANSFER k1", "TRANSFER_HAS_ONE_KEY k1", "TRANSFER_HAS_ONE_KEY k2"},
    ),
    "a key of a missing transfer": (
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
    "words without transfer": (
        [f"INSERT INTO transfer_words (transfer_id, sender_id, created_by) VALUES ('{STRAY}', {{alice}}, 'a')"],
        {"WORDS_HAVE_TRANSFER stray"},
    ),
    "words of another account": (
        [
            f"""
            INSERT INTO transfer_words (transfer_id, sender_id, created_by)
            VALUES ({transfer_with_key("k1")}, {{bob}}, 'a')
            """,
        ],
        {"WORDS_HAVE_TRANSFER k1"},
    ),
    "a reference used twice": (
        [
            f"""
            INSERT INTO transfer_words (transfer_id, sender_id, reference, is_reference_unique, created_by) VALUES
            ({transfer_with_key("k1")}, {{alice}}, 'r', false, 'a'),
            ({transfer_with_key("k2")}, {{alice}}, 'r', true, 'a'),
            ({transfer_with_key("k3")}, {{bob}}, 'r', true, 'a')
            """,
        ],
        {"REFERENCE_IS_UNIQUE k2"},
    ),
    "an outbox row without transfer": (
        [f"INSERT INTO outbox (transfer_id) VALUES ('{STRAY}')"],
        {"OUTBOX_HAS_TRANSFER stray"},
    ),
}


class TestCorrupted:
    @pytest.mark.parametrize("corruption", CORRUPTIONS)
    async def test_corruption_is_reported_with_invariant_and_row_at_every_page_size(
        self, small_ledger: SmallLedger, corruption: str
    ) -> None:
        statements, expected = CORRUPTIONS[corruption]
        pool = await small_ledger.corrupt(*statements)
        for page in (1, 2, 3, 2000):
            *findings, last = await collect_reports(ledger_integrity(pool, page))
            violations = [report for report in findings if isinstance(report, Violation)]
            assert {small_ledger.describe(violation) for violation in violations} == expected, page
            assert isinstance(last, Verdict)
            assert (last.verdict, last.violations) == ("broken", len(violations))
            assert "secret" not in repr((findings, last))

    def test_corruptions_cover_every_invariant(self) -> None:
        assert {each.split()[0] for _, expected in CORRUPTIONS.values() for each in expected} == set(Invariant)

    async def test_violation_has_the_actual_and_the_expected_value(self, small_ledger: SmallLedger) -> None:
        statement = "UPDATE accounts SET balance = 1 WHERE id = {alice}"
        pool = await small_ledger.corrupt(statement)
        (violation, _) = [
            report for report in await collect_reports(ledger_integrity(pool)) if isinstance(report, Violation)
        ]
        assert violation == Violation(Invariant.BALANCE_IS_LAST_ENTRY, {"account_id": str(ALICE)}, "1.0000", "82.0000")

    async def test_at_most_100_violations_of_an_invariant_are_reported_and_all_are_counted(
        self, small_ledger: SmallLedger
    ) -> None:
        events = f"INSERT INTO outbox (transfer_id) SELECT '{STRAY}' FROM generate_series(1, 130)"
        *findings, last = await collect_reports(ledger_integrity(await small_ledger.corrupt(events), 50))
        assert sum(isinstance(report, Violation) for report in findings) == 100
        assert isinstance(last, Verdict)
        assert (last.violations, last.broken) == (130, {Invariant.OUTBOX_HAS_TRANSFER: 130})

    async def test_unpaired_transfers_beyond_the_memory_limit_are_reported_by_partition(
        self, small_ledger: SmallLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(integrity, "_MAX_IDS_IN_MEMORY", 0)
        pool = await small_ledger.corrupt("DELETE FROM idempotency_keys WHERE key = 'k1'")
        (violation,) = [
            report for report in await collect_reports(ledger_integrity(pool)) if isinstance(report, Violation)
        ]
        (k1,) = [id_ for id_, name in small_ledger.names.items() if name == "k1"]
        assert violation.row == {"transfer_id": f"…{k1[-3:]}"}
