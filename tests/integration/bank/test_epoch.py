"""Epochs of the ledger in responses, in commands, and in the comparison of the ledger with the history of a reader.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from cli.admin_client import AdminEndpoint
from cli.ledger import EpochResult, begin_epoch, show_epoch
from kit.auth.principal import Role
from subgraphs.bank.client import HeldPosting, LedgerIdentity
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank, rub, run_bank
from tests.integration.bank.topic_reader import reading
from tests.kafka.brokers import Broker
from wallet.errors import InvalidInput, PermissionDenied


async def verify(
    bank: RunningBank, epoch: str, postings: list[HeldPosting] | None = None, past: tuple[str, ...] = ()
) -> LedgerIdentity:
    return await bank.service("analytics")(bank.client.verify_history(epoch, past, postings or []))


async def make_posting(bank: RunningBank) -> HeldPosting:
    """Make a transfer, and return the sender's posting."""
    sender, recipient = await bank.open("alice"), await bank.open("bob")
    receipt = await bank.user("alice")(bank.client.transfer(sender, recipient, rub("1.00"), f"epoch-{sender}"))
    return HeldPosting(sender, receipt.posting.version, receipt.transfer.id)


class TestVerifyHistory:
    async def test_posting_that_the_ledger_has_keeps_the_epoch(self, own_bank: RunningBank) -> None:
        posting = await make_posting(own_bank)
        assert (await verify(own_bank, "", [posting])).epoch == ""

    @pytest.mark.parametrize(
        "wrong",
        [{"version": 2}, {"version": 0}, {"transfer_id": UUID(int=7)}, {"account_id": UUID(int=7)}],
        ids=lambda wrong: next(iter(wrong)),
    )
    async def test_posting_that_the_ledger_lacks_begins_an_epoch(
        self, own_bank: RunningBank, wrong: dict[str, object]
    ) -> None:
        known = await make_posting(own_bank)
        values = {"account_id": known.account_id, "version": 1, "transfer_id": known.transfer_id} | wrong
        posting = HeldPosting(**values)  # type: ignore[arg-type]
        epoch = (await verify(own_bank, "", [known, posting])).epoch
        assert UUID(epoch)
        # The caller's epoch is not the ledger's any more, so its postings are not looked up in the ledger.
        assert (await verify(own_bank, "", [posting])).epoch == epoch
        assert (await verify(own_bank, epoch, [known], past=("",))).epoch == epoch
        reason = await own_bank.sql.fetchval("SELECT reason FROM ledger_epoch")
        assert str(posting.transfer_id) in reason

    async def test_ledger_epoch_that_a_reader_followed_before_is_replaced(self, own_bank: RunningBank) -> None:
        later = str(uuid4())
        epoch = (await verify(own_bank, later, past=("",))).epoch
        assert epoch not in {"", later}

    async def test_reader_of_an_unknown_epoch_gets_the_epoch_of_the_ledger(self, own_bank: RunningBank) -> None:
        assert (await verify(own_bank, str(uuid4()))).epoch == ""

    async def test_ended_epochs_are_past_epochs_in_order(self, own_bank: RunningBank) -> None:
        wrong = HeldPosting(UUID(int=7), 1, UUID(int=7))
        first = await verify(own_bank, "")
        second = await verify(own_bank, "", [wrong])
        third = await verify(own_bank, second.epoch, [wrong], past=("",))
        past = [each.past_epochs for each in (first, second, third)]
        assert past == [(), ("",), ("", second.epoch)]

    async def test_epochs_of_a_reader_become_past_epochs_of_a_restored_ledger(self, own_bank: RunningBank) -> None:
        """The backup is of the first epoch, so only the reader knows the epochs that began later."""
        second, third = str(uuid4()), str(uuid4())
        identity = await verify(own_bank, third, past=("", second))
        assert identity.past_epochs == ("", second, third)
        assert await verify(own_bank, third, past=("", second)) == identity  # a retry
        assert await verify(own_bank, identity.epoch, past=identity.past_epochs) == identity

    async def test_epoch_that_is_not_a_uuid_is_refused(self, own_bank: RunningBank) -> None:
        for epoch, past in (("later", ()), ("", ("earlier",))):
            with pytest.raises(InvalidInput, match="UUID"):
                await verify(own_bank, epoch, past=past)
        assert (await verify(own_bank, "")).past_epochs == ()

    async def test_incarnation_identifies_the_server_and_its_timeline(self, own_bank: RunningBank) -> None:
        system = await own_bank.sql.fetchval("SELECT system_identifier FROM pg_control_system()")
        assert (await verify(own_bank, "")).incarnation == f"{system}/00000001"

    async def test_users_and_other_services_are_refused(self, bank: RunningBank) -> None:
        for caller in (bank.user("alice"), bank.user("admin", Role.ADMIN), bank.service("card")):
            with pytest.raises(PermissionDenied):
                await caller(bank.client.verify_history("", (), []))

    async def test_too_many_postings_are_refused(self, bank: RunningBank) -> None:
        with pytest.raises(InvalidInput, match="postings"):
            await verify(bank, "", [HeldPosting(UUID(int=1), 1, UUID(int=1))] * 1_001)


class TestEpochInResponses:
    async def test_restored_ledger_returns_its_new_epoch(self, own_bank: RunningBank) -> None:
        posting = await make_posting(own_bank)
        alice, analytics = own_bank.user("alice"), own_bank.service("analytics")
        assert (await alice(own_bank.client.get_balance(posting.account_id))).epoch == ""
        headers = {"Authorization": f"Bearer {own_bank.keys.user('root', Role.ADMIN)}"}
        async with httpx.AsyncClient(base_url=own_bank.admin, trust_env=False, headers=headers) as http:
            record = (await http.post("/restored", params={"epoch": ""})).json()
            assert (await http.post("/restored", params={"epoch": ""})).status_code == 409  # a retry
            assert (await http.get("/epoch")).json() == record
        assert str(UUID(record["epoch"])) == record["epoch"]
        assert (await alice(own_bank.client.get_balance(posting.account_id))).epoch == record["epoch"]
        events = await analytics(own_bank.client.list_events(posting.account_id, 0))
        assert [event.epoch for event in events] == [record["epoch"]]

    async def test_events_after_a_restore_carry_the_epoch(
        self, ledger_url: str, keys: Keys, tmp_path: Path, broker: Broker
    ) -> None:
        settings = {"kafka_bootstrap_servers": broker.bootstrap_servers}
        async with run_bank(keys, tmp_path, ledger_url, **settings) as bank, reading(broker) as topic:
            before = str((await make_posting(bank)).transfer_id)
            await topic.until_read({before})
            epoch = (await verify(bank, "", [HeldPosting(UUID(int=7), 1, UUID(int=7))])).epoch
            after = str((await make_posting(bank)).transfer_id)
            first, second = await topic.until_read({before, after})
        epochs = {each.transfer_id: each.headers.get("ce_ledgerepoch") for each in (first, second)}
        assert epochs == {before: None, after: epoch}

    async def test_command_begins_an_epoch_and_shows_it(
        self, own_bank: RunningBank, capsys: pytest.CaptureFixture[str]
    ) -> None:
        admin = AdminEndpoint(own_bank.admin, own_bank.keys.user("root", Role.ADMIN))

        async def run(command: Callable[[AdminEndpoint], EpochResult]) -> str:
            capsys.readouterr()
            assert await asyncio.to_thread(command, admin) == EpochResult.DONE
            return capsys.readouterr().out

        assert "epoch (first) since " in await run(show_epoch)
        begun = await run(begin_epoch)
        epoch = await own_bank.sql.fetchval("SELECT epoch FROM ledger_epoch")
        assert f"epoch {epoch} begins; it replaces the first one" in begun
        assert f"epoch {epoch} since " in await run(show_epoch)

    def test_command_reports_an_unavailable_bank(self) -> None:
        for command in (show_epoch, begin_epoch):
            assert command(AdminEndpoint("http://127.0.0.1:1")) == EpochResult.NOT_DONE

    async def test_only_admins_begin_an_epoch(self, bank: RunningBank) -> None:
        async with httpx.AsyncClient(base_url=bank.admin, trust_env=False) as http:
            for token, status in ((bank.keys.user("alice"), 403), (bank.keys.service("analytics"), 403)):
                headers = {"Authorization": f"Bearer {token}"}
                response = await http.post("/restored", params={"epoch": ""}, headers=headers)
                assert response.status_code == status
            assert (await http.post("/restored", params={"epoch": ""})).status_code == 401
