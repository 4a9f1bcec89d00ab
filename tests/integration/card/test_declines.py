"""Decline limits, with a real database, a real bank and the fake acquirer."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from cli.admin_client import AdminEndpoint
from cli.topups import ReviewResult, lift_block, list_blocks
from kit.auth.principal import Principal, Role
from kit.rpc.request_context import RequestContext, current_request
from kit.runtime.process import background_task
from subgraphs.card.client import CardClient
from subgraphs.card.service.application import decline_watch
from subgraphs.card.service.application.saga import Saga
from subgraphs.card.service.application.service import TopUps
from subgraphs.card.service.domain.declines import (
    AttemptState,
    DeclineLimits,
    LimitKind,
    NewAttempt,
    NoRoomYet,
)
from subgraphs.card.service.domain.top_up import IdempotencyKey, Status, TopUp
from tests.conftest import USERS, Keys
from tests.databases import CleanDatabases
from tests.integration.bank.harness import RunningBank, rub
from tests.integration.card.card_process import RunningCard, card_details, card_settings, run_card
from tests.integration.card.environment import CardEnvironment, CrashPoint, ProcessDied, card, card_environment
from tests.integration.card.fake_acquirer import DECLINES, Failure
from tests.integration.sandbox import running as sandbox
from tests.waiting import until
from wallet.errors import IdempotencyConflict, RateLimited, TopUpDeclinesExceeded, WalletError
from wallet.luhn import has_valid_check_digit

DECLINED = next(iter(DECLINES))
LIMITS = DeclineLimits(per_customer=5, per_address=12, per_shared_address=30, per_card=1_000)


def card_numbers() -> Iterator[str]:
    """Yield different valid card numbers."""
    return (number for each in count(4_000_001_000_000_000) if has_valid_check_digit(number := str(each)))


def customer() -> Principal:
    """Return a new customer who may pay into Alice's accounts: the subject is `alice`, and the issuer is new."""
    return Principal(uuid.uuid4().hex, "alice", is_service=False, expires_at=0, roles=frozenset({Role.CUSTOMER}))


class Client:
    """Client that tops up an account as one customer."""

    def __init__(self, env: CardEnvironment, account: UUID, caller: Principal | None = None) -> None:
        self.env = env
        self.account = account
        self.caller = caller or customer()

    async def try_card(
        self, top_ups: TopUps, number: str = DECLINED, key: str | None = None, address: str | None = None, **card_: Any
    ) -> TopUp | WalletError:
        """Top up with a card. Return the top-up, or the error that the call raises."""
        with self.env.bank.user("alice").calling():
            try:
                top_up, _ = await top_ups.create(
                    self.caller,
                    self.account,
                    self.env.money("1.00"),
                    card(number, **card_),
                    key or uuid.uuid4().hex,
                    address,
                )
            except WalletError as error:
                return error
            return top_up


def kinds(results: list[TopUp | WalletError]) -> Counter[str]:
    return Counter(result.status if isinstance(result, TopUp) else type(result).__name__ for result in results)


@pytest.fixture(autouse=True)
def _long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests wait up to 300 s for a place within a limit, so that no test depends on the speed of the machine."""
    monkeypatch.setattr("subgraphs.card.service.application.service._MAX_WAIT_SECONDS", 300.0)
    monkeypatch.setattr("subgraphs.card.service.application.service.ANSWER_TIMEOUT_SECONDS", 300.0)


@pytest.fixture(scope="module")
async def module_env(bank: RunningBank, card_databases: CleanDatabases) -> AsyncIterator[CardEnvironment]:
    """Environment of this module only: its tests leave top-ups without a driver, which other tests would continue."""
    async with card_databases.one() as url, card_environment(bank, url) as env:
        yield env


@pytest.fixture
async def client(module_env: CardEnvironment) -> Client:
    env = module_env.with_new_acquirer()
    return Client(env, await env.open_account())


async def stored_states(client: Client) -> list[str]:
    """Return the states of the customer's stored attempts."""
    rows = await client.env.pool.fetch("SELECT state FROM card_attempts WHERE principal = $1", client.caller.scope)
    return [row["state"] for row in rows]


async def pass_time(client: Client, time: float | str) -> None:
    """Make the customer's attempts older by a number of seconds or an interval of PostgreSQL."""
    interval = time if isinstance(time, str) else f"{time} seconds"
    await client.env.pool.execute(
        f"UPDATE card_attempts SET since = since - interval '{interval}' WHERE principal = $1", client.caller.scope
    )


class TestCustomer:
    async def test_declined_cards_beyond_the_limit_are_refused_without_a_call_to_the_acquirer(
        self, client: Client
    ) -> None:
        env, top_ups = client.env, client.env.top_ups(LIMITS)
        env.acquirer.declines_all = True
        results = [await client.try_card(top_ups, number) for number in islice(card_numbers(), 20)]
        assert kinds(results[:5]) == {"DECLINED": 5}
        assert kinds(results[5:]) == {"TopUpDeclinesExceeded": 15}
        assert (env.acquirer.calls["tokenize"], env.acquirer.calls["authorize"]) == (5, 5)
        refused = results[-1]
        assert isinstance(refused, TopUpDeclinesExceeded)
        assert 3500 < int(refused.retry_after_seconds) <= 3600

    async def test_concurrent_declined_cards_do_not_exceed_the_limit_on_two_replicas(self, client: Client) -> None:
        env = client.env
        env.acquirer.declines_all = True
        replicas = [env.top_ups(LIMITS), env.top_ups(LIMITS)]
        numbers = enumerate(islice(card_numbers(), 100))
        results = await asyncio.gather(*(client.try_card(replicas[n % 2], number) for n, number in numbers))
        assert kinds(list(results)) == {"DECLINED": 5, "TopUpDeclinesExceeded": 95}
        assert env.acquirer.calls["authorize"] == 5

    async def test_cards_that_cannot_be_tokenized_count_as_declined(self, client: Client) -> None:
        env, top_ups = client.env, client.env.top_ups(LIMITS)
        env.acquirer.failures["tokenize"] = [Failure.REFUSED] * 100
        results = await asyncio.gather(*(client.try_card(top_ups, number) for number in islice(card_numbers(), 30)))
        assert kinds(list(results)) == {"InvalidInput": 5, "TopUpDeclinesExceeded": 25}
        assert env.acquirer.calls["tokenize"] == 5

    async def test_invalid_input_is_not_counted(self, client: Client) -> None:
        top_ups = client.env.top_ups(LIMITS)
        results = [await client.try_card(top_ups, "4242424242424241") for _ in range(6)]
        results += [await client.try_card(top_ups, cvv="1") for _ in range(6)]
        assert kinds(results) == {"InvalidInput": 12}
        assert await stored_states(client) == []
        assert kinds([await client.try_card(top_ups)]) == {"DECLINED": 1}

    async def test_concurrent_good_top_ups_above_the_limit_wait_and_are_completed(self, client: Client) -> None:
        top_ups = client.env.top_ups(LIMITS)
        results = await asyncio.gather(*(client.try_card(top_ups, "4242424242424242") for _ in range(20)))
        assert kinds(list(results)) == {"COMPLETED": 20}
        assert await stored_states(client) == []

    async def test_success_does_not_reset_the_limit(self, client: Client) -> None:
        top_ups = client.env.top_ups(LIMITS)
        for _ in range(4):
            await client.try_card(top_ups)
        assert kinds([await client.try_card(top_ups, "4242424242424242")]) == {"COMPLETED": 1}
        assert kinds([await client.try_card(top_ups) for _ in range(2)]) == {"DECLINED": 1, "TopUpDeclinesExceeded": 1}

    async def test_block_ends_when_a_decline_leaves_the_window(self, client: Client) -> None:
        top_ups = client.env.top_ups(LIMITS)
        for _ in range(5):
            await client.try_card(top_ups)
        await pass_time(client, 3599)
        assert kinds([await client.try_card(top_ups)]) == {"TopUpDeclinesExceeded": 1}
        await pass_time(client, 2)
        assert kinds([await client.try_card(top_ups)]) == {"DECLINED": 1}

    async def test_other_customers_are_not_blocked(self, client: Client) -> None:
        top_ups = client.env.top_ups(LIMITS)
        for _ in range(6):
            await client.try_card(top_ups)
        other = Client(client.env, client.account)
        assert kinds([await other.try_card(top_ups)]) == {"DECLINED": 1}

    async def test_attempt_is_deleted_if_the_acquirer_was_not_called_or_did_not_respond(self, client: Client) -> None:
        env, top_ups = client.env, client.env.top_ups(LIMITS)
        env.acquirer.failures["tokenize"] = [Failure.LOST_REQUEST]
        assert kinds([await client.try_card(top_ups)]) == {"Unavailable": 1}
        stranger = Client(env, await env.bank.open("bob"), client.caller)
        assert kinds([await stranger.try_card(top_ups)]) == {"AccountNotFound": 1}
        assert await stored_states(client) == []

    async def test_attempt_with_an_unknown_authorization_counts_until_the_outcome_is_known(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        env, saga = client.env, client.env.saga()
        top_ups = env.top_ups(DeclineLimits(per_customer=1, per_card=1_000), saga=saga)
        env.acquirer.failures["authorize"] = [Failure.LOST_RESPONSE]
        env.acquirer.failures["find_payment"] = [Failure.LOST_REQUEST] * 3
        env.acquirer.declines_all = True
        new = await create_without_driver(client, top_ups, saga, monkeypatch)
        assert await stored_states(client) == ["AUTHORIZING"]
        for _ in range(3):
            (claimed,) = await env.repository.claim(1, lease_seconds=0, id_=new.id)
            await saga.drive(claimed)
            assert await stored_states(client) == ["AUTHORIZING"]
        assert (await env.finish(new)).status is Status.DECLINED
        assert await stored_states(client) == ["DECLINED"]

    async def test_request_is_refused_if_the_limit_has_no_room_in_time(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("subgraphs.card.service.application.service._MAX_WAIT_SECONDS", 0.0)
        saga = client.env.saga()
        top_ups = client.env.top_ups(DeclineLimits(per_customer=1, per_card=1_000), saga=saga)
        await create_without_driver(client, top_ups, saga, monkeypatch)
        assert await client.try_card(top_ups) == RateLimited("card authorizations at once", "1")
        assert client.env.acquirer.calls["tokenize"] == 1


async def create_without_driver(client: Client, top_ups: TopUps, saga: Saga, monkeypatch: pytest.MonkeyPatch) -> TopUp:
    """Create a top-up and its attempt without a driver, as if the process had died directly after creating them."""
    monkeypatch.setattr(saga, "start", lambda _: None)
    monkeypatch.setattr("subgraphs.card.service.application.service.ANSWER_TIMEOUT_SECONDS", 0.0)
    top_up = await client.try_card(top_ups, key="without driver")
    assert isinstance(top_up, TopUp)
    return top_up


class TestReplay:
    async def test_replay_succeeds_during_a_block_and_is_not_counted(self, client: Client) -> None:
        top_ups = client.env.top_ups(LIMITS)
        first = await client.try_card(top_ups, key="k")
        for _ in range(3):
            assert await client.try_card(top_ups, key="k") == first
        for _ in range(4):
            await client.try_card(top_ups)
        assert kinds([await client.try_card(top_ups)]) == {"TopUpDeclinesExceeded": 1}
        calls = client.env.acquirer.calls["tokenize"]
        assert await client.try_card(top_ups, key="k") == first
        assert client.env.acquirer.calls["tokenize"] == calls
        assert await stored_states(client) == ["DECLINED"] * 5

    async def test_other_card_with_a_known_key_is_a_conflict_without_a_call_to_the_acquirer(
        self, client: Client
    ) -> None:
        top_ups = client.env.top_ups(LIMITS)
        await client.try_card(top_ups, "4242424242424242", key="k")
        calls = client.env.acquirer.calls["tokenize"]
        results = [await client.try_card(top_ups, number, key="k") for number in islice(card_numbers(), 20)]
        assert kinds(results) == {"IdempotencyConflict": 20}
        assert client.env.acquirer.calls["tokenize"] == calls

    async def test_concurrent_requests_with_one_key_and_different_cards_make_one_top_up(self, client: Client) -> None:
        top_ups = client.env.top_ups(LIMITS)
        numbers = islice(card_numbers(), 20)
        results = await asyncio.gather(*(client.try_card(top_ups, number, key="k") for number in numbers))
        assert kinds(list(results)) == {"COMPLETED": 1, "IdempotencyConflict": 19}
        assert client.env.acquirer.calls["tokenize"] == 1

    async def test_concurrent_repetitions_are_one_attempt(self, client: Client) -> None:
        top_ups = client.env.top_ups(DeclineLimits(per_customer=1, per_card=1_000))
        results = await asyncio.gather(*(client.try_card(top_ups, key="k") for _ in range(8)))
        assert kinds(list(results)) == {"DECLINED": 8}
        assert len({result.id for result in results if isinstance(result, TopUp)}) == 1
        assert await stored_states(client) == ["DECLINED"]

    async def test_top_up_of_an_earlier_release_is_recognised_by_brand_and_last_digits(self, client: Client) -> None:
        env, top_ups = client.env, client.env.top_ups(LIMITS)
        first = await client.try_card(top_ups, key="k")
        assert isinstance(first, TopUp)
        await env.pool.execute("UPDATE top_ups SET card_digest = NULL WHERE id = $1", first.id)
        replay = await client.try_card(top_ups, key="k")
        assert isinstance(replay, TopUp)
        assert replay.id == first.id
        assert isinstance(await client.try_card(top_ups, "4242424242424242", key="k"), IdempotencyConflict)


class TestAddressAndCard:
    async def test_one_address_is_limited_over_all_of_its_customers(self, client: Client) -> None:
        env, top_ups = client.env, client.env.top_ups(LIMITS)
        clients = [Client(env, client.account) for _ in range(4)]
        results = [await each.try_card(top_ups, address="8.8.4.4") for each in clients for _ in range(4)]
        assert kinds(results[:12]) == {"DECLINED": 12}
        assert kinds(results[12:]) == {"TopUpDeclinesExceeded": 4}
        elsewhere = Client(env, client.account)
        assert kinds([await elsewhere.try_card(top_ups, address="2a00:1450:1::/64")]) == {"DECLINED": 1}
        assert kinds([await elsewhere.try_card(top_ups)]) == {"DECLINED": 1}

    async def test_success_does_not_reset_the_limit_of_an_address(self, client: Client) -> None:
        top_ups = client.env.top_ups(DeclineLimits(per_customer=9, per_address=2, per_card=1_000))
        for number in (DECLINED, "4242424242424242", DECLINED):
            await client.try_card(top_ups, number, address="1.1.1.1")
        other = Client(client.env, client.account)
        assert kinds([await other.try_card(top_ups, address="1.1.1.1")]) == {"TopUpDeclinesExceeded": 1}

    async def test_one_card_is_limited_over_all_customers_expiry_dates_and_codes(self, client: Client) -> None:
        env, top_ups = client.env, client.env.top_ups(DeclineLimits(per_card=3))
        number = "5555555555554444"
        env.acquirer.declines_all = True
        results = [
            await Client(env, client.account).try_card(top_ups, number, cvv=f"{code}", month=code % 12 + 1)
            for code in range(100, 106)
        ]
        assert kinds(results) == {"DECLINED": 3, "TopUpDeclinesExceeded": 3}


class TestDeadProcess:
    async def test_attempt_of_a_dead_process_ends_after_its_maximum_duration(self, client: Client) -> None:
        env, limits = client.env, DeclineLimits(per_customer=1, per_card=1_000, attempt_seconds=15)
        crash_point = CrashPoint(2)  # dies after the look-up and the reservation
        with pytest.raises(ProcessDied):
            await client.try_card(env.top_ups(limits, crash_point), key="k")
        assert await stored_states(client) == ["TOKENIZING"]
        await pass_time(client, 14)
        new = NewAttempt(uuid.uuid4(), IdempotencyKey(client.caller.scope, "other key"), None, b"card")
        assert await env.attempts.reserve(new, limits) == NoRoomYet()
        await pass_time(client, 1)
        assert kinds([await client.try_card(env.top_ups(limits), key="k")]) == {"DECLINED": 1}

    @pytest.mark.parametrize("number", [DECLINED, "4242424242424242"])
    async def test_process_that_dies_at_any_call_leaves_the_right_count(self, client: Client, number: str) -> None:
        env, limits = client.env, LIMITS

        async def create(crash_point: CrashPoint, own: Client) -> TopUp | None:
            saga = env.saga(crash_point)
            try:
                created = await own.try_card(env.top_ups(limits, crash_point, saga=saga), number, key="k")
            except ProcessDied:
                pass
            else:
                assert isinstance(created, TopUp)
            return await env.repository.find_by_key(IdempotencyKey(own.caller.scope, "k"))

        whole = CrashPoint()
        await create(whole, Client(env, client.account))
        assert whole.calls > 5
        for cut in range(whole.calls):
            own = Client(env, client.account)
            top_up = await create(CrashPoint(cut), own)
            if top_up is not None:
                finished = await env.finish(top_up)
                assert await stored_states(own) == (["DECLINED"] if finished.status is Status.DECLINED else [])
            else:
                assert await stored_states(own) in ([], ["TOKENIZING"])


class TestOperator:
    async def test_customer_can_try_again_after_the_block_is_lifted(self, client: Client) -> None:
        env, limits = client.env, DeclineLimits(per_customer=2, per_address=2, per_card=1_000)
        top_ups = env.top_ups(limits)
        for _ in range(2):
            await client.try_card(top_ups, address="9.9.9.9")
        blocks = [block for block in await env.attempts.list_blocks(limits) if client.caller.scope in block.customers]
        assert [(block.kind, block.subject, block.declines) for block in blocks] == [
            ("customer", client.caller.scope, 2),
            ("address", "9.9.9.9", 2),
        ]
        customer_block, address_block = blocks
        assert await env.attempts.lift_block(LimitKind.CUSTOMER, customer_block.attempt_id, "issuer|operator") == 2
        assert kinds([await client.try_card(top_ups)]) == {"DECLINED": 1}
        other = Client(env, client.account)
        assert kinds([await other.try_card(top_ups, address="9.9.9.9")]) == {"TopUpDeclinesExceeded": 1}
        assert await env.attempts.lift_block(LimitKind.ADDRESS, address_block.attempt_id, "issuer|operator") == 2
        assert kinds([await other.try_card(top_ups, address="9.9.9.9")]) == {"DECLINED": 1}
        query = "SELECT kind, customers, declines, lifted_by FROM decline_lifts ORDER BY id"
        audit = [tuple(row) for row in await client.env.pool.fetch(query)][-2:]
        assert audit[0] == ("customer", [client.caller.scope], 2, "issuer|operator")
        assert audit[1] == ("address", [], 2, "issuer|operator")

    async def test_lift_of_a_missing_block_changes_and_stores_nothing(self, client: Client) -> None:
        assert await client.env.attempts.lift_block(LimitKind.CARD, uuid.uuid4(), "issuer|operator") == 0
        assert await client.env.pool.fetch("SELECT * FROM decline_lifts WHERE kind = 'card'") == []


class TestProcess:
    @pytest.fixture
    async def running(
        self, keys: Keys, tmp_path: Path, card_url: str, bank: RunningBank
    ) -> AsyncIterator[tuple[RunningCard, dict[str, str]]]:
        """Card service in this process with a limit of two declines for each public address."""
        async with sandbox.running(tmp_path, sandbox_timeout_seconds=60) as merchant:
            limits = {"card_declines_per_address": 2, "card_declines_per_shared_address": 4}
            limits |= {"acquirer_timeout_seconds": 10, "acquirer_budget_seconds": 10}
            settings = card_settings(keys, tmp_path, card_url, bank, str(merchant.http.base_url), **limits)
            async with run_card(bank, merchant, settings) as running:
                yield running, settings

    async def test_client_address_counts_only_if_the_gateway_sends_it(
        self, running: tuple[RunningCard, dict[str, str]], keys: Keys
    ) -> None:
        card_service, settings = running
        account = await card_service.bank.open("alice")

        async def top_up(address: str, proof: str) -> str:
            context = RequestContext("test", token=keys.user("alice"), client_address=address)
            target = settings["card_grpc_listen"]
            async with CardClient.connect(target, gateway_token=lambda: proof) as client:
                reset = current_request.set(context)
                try:
                    created = await client.create_top_up(account, rub("1"), details, uuid.uuid4().hex)
                except TopUpDeclinesExceeded as error:
                    return error.reason
                finally:
                    current_request.reset(reset)
                return created.top_up.status

        details, gateway = card_details(DECLINED), keys.service("gateway")
        assert [await top_up("8.8.8.8", gateway) for _ in range(3)] == ["DECLINED"] * 2 + ["TOP_UP_DECLINES_EXCEEDED"]
        assert [await top_up("127.0.0.1", gateway) for _ in range(5)] == ["DECLINED"] * 4 + ["TOP_UP_DECLINES_EXCEEDED"]
        forged = [await top_up("8.8.8.8", proof) for proof in (keys.user("gateway"), keys.service("card"), "")]
        assert forged == ["DECLINED"] * 3

    async def test_operator_sees_a_block_and_lifts_it(
        self,
        keys: Keys,
        tmp_path: Path,
        card_url: str,
        bank: RunningBank,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        async def run(command: Callable[..., ReviewResult], *arguments: object) -> tuple[ReviewResult, list[str]]:
            capsys.readouterr()
            code = await asyncio.to_thread(command, *arguments)
            # This process also runs the service, which logs to the same output.
            return code, [line for line in capsys.readouterr().out.splitlines() if not line[:4].isdigit()]

        async with sandbox.running(tmp_path, sandbox_timeout_seconds=60) as merchant:
            limits = {"card_declines_per_customer": 2, "acquirer_timeout_seconds": 10}
            settings = card_settings(keys, tmp_path, card_url, bank, str(merchant.http.base_url), **limits)
            async with run_card(bank, merchant, settings) as running:
                operator = AdminEndpoint(running.admin, keys.user("olga", Role.OPERATOR))
                account = await bank.open("alice")
                assert await run(list_blocks, operator) == (0, ["0 limits of declined cards are reached"])
                for number in range(2):
                    await running.top_up(account, rub("1"), f"declined {number}", DECLINED)
                with pytest.raises(TopUpDeclinesExceeded):
                    await running.top_up(account, rub("1"), "refused", DECLINED)
                code, (block, total) = await run(list_blocks, operator)
                assert (code, total) == (1, "1 limits of declined cards are reached")
                id_, _, text = block.partition(": ")
                assert text.startswith(f"customer {USERS}|alice, 2 declines of 2, for 3")
                customer = AdminEndpoint(running.admin, keys.user("alice"))
                code, (line,) = await run(lift_block, customer, id_)
                assert (code, "403" in line) == (2, True)
                assert await run(lift_block, operator, id_) == (0, [f"lifted: {id_}, 2 declines no longer count"])
                assert (await running.top_up(account, rub("1"), "refused", DECLINED)).status == "DECLINED"
                assert await running.sql.fetchval("SELECT lifted_by FROM decline_lifts") == f"{USERS}|olga"
                code, (line,) = await run(lift_block, operator, id_)
                assert (code, "404: there is no block" in line) == (2, True)
        code, (line,) = await run(list_blocks, operator)
        assert (code, line.startswith("unknown: no response")) == (2, True)


async def test_watch_counts_blocks_and_deletes_old_attempts(
    env: CardEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decline_watch, "_INTERVAL_SECONDS", 0.02)
    limits, client = DeclineLimits(per_customer=2, window_seconds=3600), Client(env, await env.open_account())
    for _ in range(2):
        await client.try_card(env.top_ups(limits))

    async def has_blocks(expected: float) -> bool:
        return REGISTRY.get_sample_value("wallet_card_decline_blocks", {"limit": "customer"}) == expected

    async with background_task(decline_watch.run_decline_watch(env.attempts, limits), "decline limits"):
        await until(lambda: has_blocks(1))
        await pass_time(client, 3601)
        await until(lambda: has_blocks(0))
        assert await stored_states(client) == []


@pytest.mark.parametrize("ahead", ["1 hour", "1 year"])
async def test_block_of_declines_in_the_future_lasts_one_window(
    env: CardEnvironment, monkeypatch: pytest.MonkeyPatch, ahead: str
) -> None:
    """The clock of the database was ahead when cards were declined, and is corrected now."""
    monkeypatch.setattr(decline_watch, "_INTERVAL_SECONDS", 0.02)
    limits, client = (
        DeclineLimits(per_customer=2, per_card=2, window_seconds=3600),
        Client(env, await env.open_account()),
    )
    top_ups = env.top_ups(limits)
    for _ in range(2):
        await client.try_card(top_ups)
    await pass_time(client, f"-{ahead}")
    refused = await client.try_card(top_ups)
    assert isinstance(refused, TopUpDeclinesExceeded)
    assert int(refused.retry_after_seconds) == 3600
    assert max(block.seconds for block in await env.attempts.list_blocks(limits)) <= 3600

    async def are_redated() -> bool:
        return not await env.pool.fetchval("SELECT count(*) FROM card_attempts WHERE since > clock_timestamp()")

    async with background_task(decline_watch.run_decline_watch(env.attempts, limits), "decline limits"):
        await until(are_redated)
    await pass_time(client, "3500 seconds")
    assert isinstance(await client.try_card(top_ups), TopUpDeclinesExceeded)
    await pass_time(client, "101 seconds")
    assert kinds([await client.try_card(top_ups)]) == {"DECLINED": 1}


async def test_old_attempts_are_deleted_and_attempts_that_count_are_kept(env: CardEnvironment) -> None:
    limits = DeclineLimits(window_seconds=100)
    client = Client(env, await env.open_account())
    top_ups = env.top_ups(limits)
    for _ in range(2):
        await client.try_card(top_ups)
    first = await env.pool.fetchval("SELECT id FROM card_attempts LIMIT 1")
    await pass_time(client, 99)
    assert await env.attempts.delete_old_attempts(limits) == 0
    await env.pool.execute("UPDATE card_attempts SET since = since - interval '2 seconds' WHERE id = $1", first)
    assert await env.attempts.delete_old_attempts(limits) == 1
    assert await stored_states(client) == [AttemptState.DECLINED]
