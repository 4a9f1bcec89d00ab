"""Contract tests for the fake acquirer and the HTTP client with the sandbox, then tests of the HTTP client alone."""

import asyncio
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import REGISTRY
from pydantic import SecretStr

from kit.http.server import http_server
from kit.rpc import circuit_breaker
from provisioning.certificates import CertificateFiles, ensure_certificates
from stack.ports import free_ports
from subgraphs.card.service.adapters import acquirer_http
from subgraphs.card.service.adapters.acquirer import Acquirer, on_behalf_of
from subgraphs.card.service.adapters.acquirer_http import HttpAcquirer, RetryPolicy
from subgraphs.card.service.domain.cards import Brand, CardToken
from subgraphs.card.service.domain.payment import NoPayment, Payment, PaymentStatus, Refusal
from tests.clock import ManualClock
from tests.integration.bank.harness import rub
from tests.integration.card.environment import card
from tests.integration.card.fake_acquirer import FakeAcquirer
from tests.integration.sandbox import running as sandbox
from tests.integration.sandbox.running import API_KEY
from wallet.errors import Unavailable

AMOUNT = rub("10.00")


@pytest.fixture(scope="module")
async def http_acquirer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Acquirer]:
    async with (
        sandbox.running(tmp_path_factory.mktemp("sandbox"), sandbox_timeout_seconds=60) as merchant,
        HttpAcquirer.connect(str(merchant.http.base_url), SecretStr(API_KEY)) as acquirer,
    ):
        yield acquirer


@pytest.fixture(scope="module")
def fake_acquirer() -> Acquirer:
    return FakeAcquirer()


@pytest.fixture(params=["fake_acquirer", "http_acquirer"])
def acquirer(request: pytest.FixtureRequest) -> Acquirer:
    acquirer: Acquirer = request.getfixturevalue(request.param)
    return acquirer


async def create_token(acquirer: Acquirer, number: str = "4242424242424242") -> CardToken:
    token = await acquirer.tokenize(card(number))
    assert isinstance(token, CardToken)
    return token


async def authorize(acquirer: Acquirer, number: str = "4242424242424242") -> Payment:
    payment = await acquirer.authorize(uuid.uuid4().hex, await create_token(acquirer, number), AMOUNT, "reference")
    assert isinstance(payment, Payment)
    return payment


def status_and_amounts(payment: object) -> tuple[PaymentStatus, str, str]:
    """Return status, captured amount and refunded amount."""
    assert isinstance(payment, Payment)
    return payment.status, str(payment.captured), str(payment.refunded)


def wrong_status(payment: object) -> Refusal:
    """Return the refusal of a change that the payment's status does not allow."""
    assert isinstance(payment, Payment)
    return Refusal("WRONG_STATUS", payment)


class TestContract:
    async def test_token_depends_on_number_and_not_on_security_code(self, acquirer: Acquirer) -> None:
        first = await create_token(acquirer)
        assert (first.brand, first.last_four) == (Brand.VISA, "4242")
        assert await acquirer.tokenize(card(cvv="321")) == first
        assert (await create_token(acquirer, "5555555555554444")).token != first.token
        assert await acquirer.tokenize(card("4242424242424241")) == Refusal("INVALID_CARD")

    async def test_key_authorizes_once(self, acquirer: Acquirer) -> None:
        key, token = uuid.uuid4().hex, await create_token(acquirer)
        first = await acquirer.authorize(key, token, AMOUNT, "reference")
        assert status_and_amounts(first) == (PaymentStatus.AUTHORIZED, "0.00", "0.00")
        assert await acquirer.authorize(key, token, AMOUNT, "reference") == first
        assert await acquirer.find_payment(key) == first
        assert await acquirer.authorize(key, token, rub("10.01"), "reference") == Refusal("KEY_REUSED")

    async def test_declined_card_is_a_payment_with_a_decline_code(self, acquirer: Acquirer) -> None:
        key, declined = uuid.uuid4().hex, await create_token(acquirer, "4000000000000002")
        payment = await acquirer.authorize(key, declined, AMOUNT, "reference")
        assert status_and_amounts(payment) == (PaymentStatus.DECLINED, "0.00", "0.00")
        assert isinstance(payment, Payment)
        assert payment.decline_code == "DO_NOT_HONOR"
        assert await acquirer.cancel(key) == payment

    async def test_unknown_token_is_refused(self, acquirer: Acquirer) -> None:
        unknown = CardToken("tok_unknown", Brand.VISA, "4242")
        assert await acquirer.authorize(uuid.uuid4().hex, unknown, AMOUNT, "reference") == Refusal("UNKNOWN_TOKEN")

    async def test_amount_is_captured_once_and_refunded_once(self, acquirer: Acquirer) -> None:
        payment = await authorize(acquirer)
        for _ in range(2):
            captured = await acquirer.capture(payment.id, f"{payment.key}:capture")
            assert status_and_amounts(captured) == (PaymentStatus.CAPTURED, "10.00", "0.00")
        assert await acquirer.void(payment.id, f"{payment.key}:void") == wrong_status(captured)
        assert await acquirer.cancel(payment.key) == wrong_status(captured)
        for _ in range(2):
            refunded = await acquirer.refund(payment.id, f"{payment.key}:refund")
            assert status_and_amounts(refunded) == (PaymentStatus.REFUNDED, "10.00", "10.00")
        assert (
            await acquirer.capture(payment.id, f"{payment.key}:capture") == refunded
        )  # a replay returns the current state
        assert await acquirer.find_payment(payment.key) == refunded

    async def test_authorized_amount_is_voided_once(self, acquirer: Acquirer) -> None:
        payment = await authorize(acquirer)
        for _ in range(2):
            voided = await acquirer.void(payment.id, f"{payment.key}:void")
            assert status_and_amounts(voided) == (PaymentStatus.VOIDED, "0.00", "0.00")
        assert await acquirer.capture(payment.id, f"{payment.key}:capture") == wrong_status(voided)
        assert await acquirer.refund(payment.id, f"{payment.key}:refund") == wrong_status(voided)

    async def test_cancelled_key_authorizes_nothing(self, acquirer: Acquirer) -> None:
        key, token = uuid.uuid4().hex, await create_token(acquirer)
        assert await acquirer.find_payment(key) == NoPayment()
        for _ in range(2):
            assert await acquirer.cancel(key) == NoPayment()
        assert await acquirer.authorize(key, token, AMOUNT, "reference") == Refusal("KEY_CANCELLED")
        assert await acquirer.find_payment(key) == NoPayment()

    async def test_cancellation_voids_the_authorization_of_the_key(self, acquirer: Acquirer) -> None:
        payment = await authorize(acquirer)
        for _ in range(2):
            assert status_and_amounts(await acquirer.cancel(payment.key)) == (PaymentStatus.VOIDED, "0.00", "0.00")

    async def test_refused_change_leaves_the_payment_unchanged(self, acquirer: Acquirer) -> None:
        uncapturable = await authorize(acquirer, "4000000000020042")
        assert await acquirer.capture(uncapturable.id, "c" + uncapturable.key) == Refusal("REFUSED", uncapturable)
        unrefundable = await authorize(acquirer, "4000000000040024")
        captured = await acquirer.capture(unrefundable.id, "c" + unrefundable.key)
        assert await acquirer.refund(unrefundable.id, "r" + unrefundable.key) == Refusal("REFUSED", captured)  # type: ignore[arg-type]

    async def test_change_of_a_missing_payment_is_refused(self, acquirer: Acquirer) -> None:
        assert await acquirer.capture("pay_missing", uuid.uuid4().hex) == Refusal("NOT_FOUND")

    async def test_pages_list_all_payments(self, acquirer: Acquirer) -> None:
        created = [await authorize(acquirer) for _ in range(3)]
        listed: list[Payment] = []
        while page := await acquirer.list_payments(listed[-1].id if listed else None, 2):
            listed += page
        assert listed[-3:] == created


class ResponseServer:
    """HTTP server that returns the given responses in order, then repeats the last one.

    Attributes:
        calls: number of requests.
        called: set at each request.
        connections: address and port of the client's end of each connection that had a request.
    """

    def __init__(self, *responses: tuple[int, Any] | str) -> None:
        self.responses = list(responses)
        self.calls = 0
        self.called = asyncio.Event()
        self.connections: set[object] = set()

    @asynccontextmanager
    async def serve(
        self, *, certificate: CertificateFiles | None = None, trusted: ssl.SSLContext | None = None, **overrides: Any
    ) -> AsyncIterator[HttpAcquirer]:
        """Serve, and yield a client.

        Args:
            certificate: certificate of the server; None: the server has no TLS.
            trusted: TLS context of the client; None: its default.
            overrides: changes of the client's retry policy.
        """
        app, (port,) = FastAPI(openapi_url=None), free_ports(1)

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def respond(request: Request) -> Response:
            self.calls += 1
            self.called.set()
            self.connections.add(request.client)
            response = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
            if response == DRIP:
                return StreamingResponse(drip())
            if isinstance(response, str):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                return Response()
            status, body = response
            return Response(body, status, {"Location": "/v1/payments"}, media_type="application/json")

        settings = {"timeout_seconds": 1.0, "attempts": 1, "circuit_failures": 100} | overrides
        options: dict[str, Any] = (
            {"ssl_certfile": certificate.certificate, "ssl_keyfile": certificate.key} if certificate else {}
        )
        url = f"http{'s' if certificate else ''}://127.0.0.1:{port}"
        async with (
            http_server(app, f"127.0.0.1:{port}", **options),
            HttpAcquirer.connect(url, SecretStr("key"), RetryPolicy(**settings), trusted) as acquirer,
        ):
            yield acquirer


SILENCE = "silence"
DRIP = "drip"


async def drip() -> AsyncIterator[bytes]:
    """Yield an endless response, byte by byte, with pauses that are shorter than a read time-out."""
    while True:
        yield b" "
        await asyncio.sleep(0.02)


NO_PAYMENTS = (200, '{"payments": []}')
SERVER_ERROR = (503, '{"code": "UNAVAILABLE", "message": "not now"}')


async def find(acquirer: HttpAcquirer) -> object:
    return await acquirer.find_payment("key")


async def find_fails(acquirer: HttpAcquirer) -> None:
    with pytest.raises(Unavailable, match="the card acquirer is not available now"):
        await find(acquirer)


def circuit_state() -> str:
    """Return the state of the circuit according to its metric."""
    states = ("closed", "half-opened", "opened")
    name = "wallet_card_acquirer_circuit"
    (current,) = [state for state in states if REGISTRY.get_sample_value(name, {name: state})]
    return current


class TestResponses:
    @pytest.mark.parametrize(
        "response",
        [
            SERVER_ERROR,
            SILENCE,
            DRIP,
            (500, "<html>"),
            (200, '{"payments": [{}]}'),
            (200, "nothing"),
            (404, "<html>no such page"),
            (401, '{"code": "UNAUTHORIZED", "message": "no"}'),
            (409, '{"code": "KEY_IN_USE", "message": "in use"}'),
            (301, ""),
            (307, '{"payments": []}'),
            (422, '{"code": "INVALID_REQUEST", "message": "no"}'),
        ],
    )
    async def test_unclear_response_raises_unavailable(self, response: Any) -> None:
        async with ResponseServer(response).serve() as acquirer:
            await find_fails(acquirer)

    async def test_call_is_retried_after_unclear_responses(self) -> None:
        server = ResponseServer(SERVER_ERROR, SILENCE, NO_PAYMENTS)
        async with server.serve(attempts=3) as acquirer:
            assert await find(acquirer) == NoPayment()
        assert server.calls == 3

    async def test_call_is_not_retried_after_its_budget(self) -> None:
        server = ResponseServer(SILENCE)
        async with server.serve(attempts=100, budget_seconds=0.1) as acquirer:
            await find_fails(acquirer)
        assert server.calls <= 1  # on a busy machine, the attempt may time out before it reaches the server

    async def test_refused_connection_raises_unavailable(self) -> None:
        (port,) = free_ports(1)
        policy = RetryPolicy(attempts=2)
        async with HttpAcquirer.connect(f"http://127.0.0.1:{port}", SecretStr("key"), policy) as acquirer:
            await find_fails(acquirer)


class TestConnections:
    @pytest.mark.parametrize(
        "response",
        [
            b"",
            b"no HTTP\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nX: " + 100_000 * b"x" + b"\r\n\r\n",
        ],
        ids=["nothing", "no HTTP", "incomplete body", "invalid chunk", "invalid compression", "long header"],
    )
    async def test_broken_response_raises_unavailable(self, response: bytes) -> None:
        async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
            writer.close()

        async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            policy = RetryPolicy(timeout_seconds=30, attempts=1)
            async with HttpAcquirer.connect(f"http://127.0.0.1:{port}/", SecretStr("key"), policy) as acquirer:
                await find_fails(acquirer)

    async def test_calls_share_a_connection(self) -> None:
        server = ResponseServer(NO_PAYMENTS)
        async with server.serve(timeout_seconds=30) as acquirer:
            for _ in range(5):
                await find(acquirer)
        assert (server.calls, len(server.connections)) == (5, 1)

    async def test_calls_above_the_maximum_of_connections_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(acquirer_http, "_MAX_CONNECTIONS", 3)
        server = ResponseServer(NO_PAYMENTS)
        async with server.serve(timeout_seconds=30) as acquirer:
            assert await asyncio.gather(*(find(acquirer) for _ in range(20))) == [NoPayment()] * 20
        assert (server.calls, len(server.connections)) == (20, 3)

    async def test_wait_for_a_connection_ends_with_the_time_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(acquirer_http, "_MAX_CONNECTIONS", 1)
        server = ResponseServer(SILENCE)
        async with server.serve() as acquirer:
            await asyncio.gather(*(find_fails(acquirer) for _ in range(3)))

    async def test_call_is_repeated_on_a_new_connection_if_the_acquirer_has_closed_the_last_one(self) -> None:
        closed = asyncio.Event()

        async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"payments": []}')
            writer.close()  # without `Connection: close`, so the client would use the connection again
            await writer.wait_closed()
            closed.set()

        async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with HttpAcquirer.connect(url, SecretStr("key"), RetryPolicy(timeout_seconds=30)) as acquirer:
                for _ in range(3):
                    assert await find(acquirer) == NoPayment()
                    await closed.wait()
                    closed.clear()

    async def test_proxy_of_the_environment_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (port,) = free_ports(1)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        async with ResponseServer(NO_PAYMENTS).serve(timeout_seconds=30) as acquirer:
            assert await find(acquirer) == NoPayment()

    async def test_card_is_sent_over_tls_only_to_a_trusted_acquirer(self, tmp_path: Path) -> None:
        authority, certificate = ensure_certificates(tmp_path, ["acquirer"], datetime.now(UTC))
        server = ResponseServer((422, '{"code": "INVALID_CARD", "message": "no"}'))
        trusted = ssl.create_default_context(cafile=authority.certificate)
        async with server.serve(certificate=certificate, trusted=trusted, timeout_seconds=30) as acquirer:
            assert await acquirer.tokenize(card()) == Refusal("INVALID_CARD")
        async with server.serve(certificate=certificate, timeout_seconds=30) as acquirer:
            with pytest.raises(Unavailable):
                await acquirer.tokenize(card())
        assert server.calls == 1

    async def test_log_of_a_failed_call_has_no_card_data(self, capsys: pytest.CaptureFixture[str]) -> None:
        details = card()
        async with ResponseServer((500, details.number)).serve() as acquirer:
            with pytest.raises(Unavailable):
                await acquirer.tokenize(details)
        output = "".join(capsys.readouterr())
        assert "acquirer call failed" in output
        assert details.number not in output


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """Clock of all circuit breakers."""
    clock = ManualClock()
    monkeypatch.setattr(circuit_breaker, "time", clock)
    return clock


class TestCircuit:
    async def test_failed_calls_of_one_customer_do_not_open_the_circuit_for_others(self) -> None:
        server = ResponseServer(SERVER_ERROR, SERVER_ERROR, NO_PAYMENTS)
        async with server.serve(circuit_failures=2, circuit_seconds=3_600, timeout_seconds=30) as acquirer:
            with on_behalf_of("alice"):
                for _ in range(3):
                    await find_fails(acquirer)
            assert server.calls == 2  # the last call was not made
            assert circuit_state() == "closed"
            with on_behalf_of("bob"):
                assert await find(acquirer) == NoPayment()
            with on_behalf_of("alice"):
                assert await find(acquirer) == NoPayment()

    async def test_circuit_opens_after_failures_of_several_customers_and_closes_after_a_success(
        self, clock: ManualClock
    ) -> None:
        server = ResponseServer(SERVER_ERROR, SERVER_ERROR, NO_PAYMENTS)
        async with server.serve(circuit_failures=2, circuit_seconds=60) as acquirer:
            for customer in ("alice", "bob"):
                with on_behalf_of(customer):
                    await find_fails(acquirer)
            assert circuit_state() == "opened"
            await find_fails(acquirer)
            assert server.calls == 2  # the last call was not made
            clock.advance(60)
            assert await find(acquirer) == NoPayment()
            assert circuit_state() == "closed"

    async def test_half_open_circuit_allows_one_call_and_opens_again_if_it_fails(self, clock: ManualClock) -> None:
        server = ResponseServer(SERVER_ERROR, SILENCE)
        async with server.serve(circuit_failures=1, circuit_seconds=60) as acquirer:
            await find_fails(acquirer)
            clock.advance(60)
            server.called.clear()
            trial = asyncio.create_task(find_fails(acquirer))
            await server.called.wait()
            assert circuit_state() == "half-opened"
            await find_fails(acquirer)
            assert server.calls == 2
            await trial
            assert circuit_state() == "opened"

    async def test_cancelled_call_does_not_change_the_circuit(self, clock: ManualClock) -> None:
        server = ResponseServer(SERVER_ERROR, SILENCE, NO_PAYMENTS)
        async with server.serve(circuit_failures=1, circuit_seconds=60, timeout_seconds=30) as acquirer:
            await find_fails(acquirer)
            clock.advance(60)
            server.called.clear()
            trial = asyncio.create_task(find(acquirer))
            await server.called.wait()
            trial.cancel()
            await asyncio.wait({trial})
            assert circuit_state() == "half-opened"
            assert await find(acquirer) == NoPayment()
            assert circuit_state() == "closed"

    @pytest.mark.parametrize(
        "response",
        [
            NO_PAYMENTS,
            (409, '{"code": "KEY_IN_USE", "message": "in use"}'),
            (401, '{"code": "UNAUTHORIZED", "message": "no"}'),
            (422, '{"code": "UNKNOWN_TOKEN", "message": "no"}'),
        ],
    )
    async def test_responses_below_500_do_not_open_the_circuit(self, response: Any) -> None:
        server = ResponseServer(response)
        async with server.serve(circuit_failures=1, timeout_seconds=30) as acquirer:
            for _ in range(3):
                await asyncio.gather(find(acquirer), return_exceptions=True)
        assert server.calls == 3

    async def test_success_resets_the_count_of_failures(self) -> None:
        server = ResponseServer(*[SERVER_ERROR, NO_PAYMENTS] * 3)
        async with server.serve(circuit_failures=2, timeout_seconds=30) as acquirer:
            for _ in range(3):
                await find_fails(acquirer)
                await find(acquirer)
        assert server.calls == 6
