"""Card numbers and codes reach the card service only: no response and no log line contains them."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.conftest import Keys
from tests.integration.gateway.fake_services import ACCOUNT, FakeBank, FakeCard, top_up
from tests.integration.gateway.gateway_process import Gateway, run_gateway_process
from tests.integration.gateway.logs import logs_since
from wallet.errors import InvalidInput

NUMBER, CVV = "5105105105105100", "739182645"
"""The code is longer than a real one, so it never occurs by chance. The gateway does not check its length."""

HIDDEN = re.compile("5105 ?105|" + r"\W*".join(CVV[:6]))
"""Matches the start of the number, and the code as a text or as a list of digits."""

HEADERS = {"Content-Type": "application/json"}

VALID = {"number": NUMBER, "expiryMonth": 12, "expiryYear": 2031, "cvv": CVV}
INVALID_CARDS: dict[str, Any] = {
    "number is an integer": VALID | {"number": int(NUMBER)},
    "number is a fraction": VALID | {"number": float(NUMBER)},
    "number is a list": VALID | {"number": [NUMBER]},
    "number is an object": VALID | {"number": {NUMBER: NUMBER}},
    "number is too long": VALID | {"number": NUMBER * 20},
    "number is far too long": VALID | {"number": NUMBER * 5_000},
    "number has spaces": VALID | {"number": "5105 1051 0510 5100"},
    "number is not valid Unicode": VALID | {"number": NUMBER + "\ud800"},
    "cvv is a list": VALID | {"cvv": [int(digit) for digit in CVV]},
    "cvv is an integer": VALID | {"cvv": int(CVV)},
    "cvv is null": VALID | {"cvv": None},
    "number is in another field": VALID | {"expiryMonth": NUMBER, "expiryYear": int(NUMBER)},
    "another field is wrong": VALID | {"expiryMonth": "May"},
    "a field is missing": {"number": NUMBER, "cvv": CVV, "expiryMonth": 12},
    "there is one more field": VALID | {"name": NUMBER},
    "a name is wrong": {"nubmer": NUMBER, "cvv": CVV, "expiryMonth": 12, "expiryYear": 2031},
    "number is a name": VALID | {NUMBER: CVV},
    "card is the number": NUMBER,
    "card is a list": [VALID, VALID],
}
MALFORMED_BODIES = {
    "is cut": '{"amount": "1", "card": {"number": "%s", "cvv": "%s"',
    "has an open string": '{"amount": "1", "card": {"number": "%s, "cvv": %s}}',
    "is not quoted": '{"amount": "1", "card": {number: %s, cvv: %s}}',
    "is a list": '["%s", "%s"]',
    "is a text": '"%s %s"',
    "is not JSON": "number=%s&cvv=%s",
    "is not valid Unicode": '{"number": "%s", "cvv": "%s\udcff"}',
}
INVALID_LITERALS = {
    "number is an integer": 'number: %s, expiryMonth: 1, expiryYear: 2031, cvv: "%s"',
    "cvv is a list": 'number: "%s", expiryMonth: 1, expiryYear: 2031, cvv: [%s]',
    "number is a fraction": "number: %s.5, expiryMonth: 1, expiryYear: 2031, cvv: %s",
    "number is an enum's value": "number: n%s, expiryMonth: 1, expiryYear: 2031, cvv: n%s",
    "number is in another field": 'number: "%s", expiryMonth: "5105105105105100", expiryYear: 2031, cvv: "%s"',
    "another field is out of range": 'number: "%s", expiryMonth: 5105105105105100, expiryYear: 2031, cvv: "%s"',
    "a field is missing": 'number: "%s", expiryMonth: 1, cvv: "%s"',
    "a name is wrong": 'nubmer: "%s", expiryMonth: 1, expiryYear: 2031, cvv: "%s"',
    "number is a name": 'n%s: "%s", expiryMonth: 1, expiryYear: 2031',
    "a colon is missing": 'number "%s", expiryMonth: 1, expiryYear: 2031, cvv: "%s"',
    "a colon before an integer is missing": "number %s cvv %s",
    "a string is open": 'number: "%s, expiryMonth: 1\n cvv: "%s',
    "an escape is wrong": 'number: "\\u%s", cvv: "\\x%s"',
    "a number goes on as a name": "number: %sx, cvv: %sx",
    "a character is wrong": 'number: "%s" ; cvv: "%s" ?',
}
MUTATION = "mutation($input: TopUpAccountInput!) { topUpAccount(input: $input) { ... on Error { code message } } }"
INLINE = """mutation {{ topUpAccount(input: {{
    accountId: "{account}", amount: "1", idempotencyKey: "k", card: {{ {card} }}
}}) {{ ... on Error {{ code message }} }} }}"""


@pytest.fixture(autouse=True)
def card_service_rejects_cards(bank: FakeBank, card: FakeCard) -> None:
    """Make the card service reject every card that the gateway passes on."""
    card.result = InvalidInput.for_field("card.number", "is not a card number")


def assert_hidden(response: httpx.Response) -> None:
    assert not HIDDEN.search(response.text), response.text


@pytest.fixture(autouse=True)
async def log_has_no_card_data(gateway: Gateway) -> AsyncIterator[None]:
    """Check the gateway's log lines after each test."""
    start = len(gateway.log_lines)
    yield
    assert not [line for line in await logs_since(gateway, start) if HIDDEN.search(line)]


async def send_rest(http: httpx.AsyncClient, body: str) -> httpx.Response:
    headers = HEADERS | {"Idempotency-Key": "k", "Connection": "close"}
    return await http.post(f"/accounts/{ACCOUNT}/topup", content=body.encode(errors="surrogateescape"), headers=headers)


async def send_graphql(http: httpx.AsyncClient, body: str, **headers: str) -> httpx.Response:
    return await http.post("/graphql", content=body.encode(errors="surrogateescape"), headers=HEADERS | headers)


def body_with_variables(card: Any, **more: Any) -> str:
    fields = {"accountId": str(ACCOUNT), "amount": "1", "idempotencyKey": "k", "card": card}
    return json.dumps({"query": MUTATION, "variables": {"input": fields | more}})


def body_with_literals(card: str) -> str:
    return json.dumps({"query": INLINE.format(account=ACCOUNT, card=card % (NUMBER, CVV))})


class TestRest:
    @pytest.mark.parametrize("bad", INVALID_CARDS.values(), ids=INVALID_CARDS)
    async def test_rejected_rest_card_is_not_quoted(self, gateway: Gateway, bad: Any) -> None:
        refused = await send_rest(gateway.http, json.dumps({"amount": "1", "card": bad}))
        assert refused.status_code in {400, 413}
        assert_hidden(refused)

    @pytest.mark.parametrize("body", MALFORMED_BODIES.values(), ids=MALFORMED_BODIES)
    async def test_rejected_malformed_rest_body_is_not_quoted(self, gateway: Gateway, body: str) -> None:
        refused = await send_rest(gateway.http, body % (NUMBER, CVV))
        assert refused.status_code == 400
        assert_hidden(refused)


class TestGraphQL:
    @pytest.mark.parametrize("bad", INVALID_CARDS.values(), ids=INVALID_CARDS)
    async def test_rejected_card_in_variables_is_not_quoted(self, gateway: Gateway, bad: Any) -> None:
        assert_hidden(await send_graphql(gateway.http, body_with_variables(bad)))

    @pytest.mark.parametrize("more", [{"amount": 1}, {"idempotencyKey": None}, {"accountId": [1]}, {"x": 1}], ids=str)
    async def test_valid_card_beside_an_invalid_field_is_not_quoted(
        self, gateway: Gateway, more: dict[str, Any]
    ) -> None:
        refused = await send_graphql(gateway.http, body_with_variables(VALID, **more))
        assert refused.json()["errors"][0]["extensions"]["code"] == "INVALID_GRAPHQL"
        assert_hidden(refused)

    @pytest.mark.parametrize("bad", INVALID_LITERALS.values(), ids=INVALID_LITERALS)
    async def test_rejected_card_in_the_document_is_not_quoted(self, gateway: Gateway, bad: str) -> None:
        assert_hidden(await send_graphql(gateway.http, body_with_literals(bad)))

    @pytest.mark.parametrize("body", MALFORMED_BODIES.values(), ids=MALFORMED_BODIES)
    async def test_rejected_malformed_graphql_body_is_not_quoted(self, gateway: Gateway, body: str) -> None:
        refused = await send_graphql(gateway.http, body % (NUMBER, CVV))
        assert refused.status_code == 400
        assert_hidden(refused)

    async def test_error_still_names_the_place(self, gateway: Gateway) -> None:
        (error,) = (await send_graphql(gateway.http, body_with_variables(INVALID_CARDS["a name is wrong"]))).json()[
            "errors"
        ]
        assert error["message"] == (
            "a variable of type `TopUpAccountInput!` has an invalid value at `card`: `CardInput` requires `number`, "
            "and `CardInput` has no such field; did you mean `number`?"
        )
        assert error["locations"] == [{"line": 1, "column": 10}]

    @pytest.mark.parametrize("bad", INVALID_LITERALS.values(), ids=INVALID_LITERALS)
    async def test_rejected_card_is_not_quoted_on_streams(self, gateway: Gateway, bad: str) -> None:
        assert_hidden(await send_graphql(gateway.http, body_with_literals(bad), Accept="text/event-stream"))
        url = f"{gateway.url.replace('http', 'ws')}/graphql"
        async with connect(url, subprotocols=["graphql-transport-ws"]) as connection:  # type: ignore[list-item]
            payload = {"authorization": f"Bearer {gateway.token}"}
            await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
            await connection.recv()
            subscribe = {"id": "1", "type": "subscribe", "payload": json.loads(body_with_literals(bad))}
            await connection.send(json.dumps(subscribe))
            try:
                assert not HIDDEN.search(str(await connection.recv()))
            except ConnectionClosed as closed:
                assert not HIDDEN.search(str(closed))  # noqa: PT017  the gateway may close the connection


class TestUnexpectedError:
    """An invalid response of the card service causes an unexpected error while the gateway holds card data."""

    async def test_json_log_of_an_unexpected_error_has_no_card_data(self, gateway: Gateway, card: FakeCard) -> None:
        await self.cause_error(gateway, card)

    @pytest.mark.slow
    async def test_console_log_of_an_unexpected_error_has_no_card_data(
        self, services: tuple[str, FakeBank, FakeCard], keys: Keys, tmp_path: Path, card: FakeCard
    ) -> None:
        async with run_gateway_process(
            keys, tmp_path, bank=services[0], card=services[0], log_format="console"
        ) as gateway:
            await self.cause_error(gateway, card)

    async def cause_error(self, gateway: Gateway, card: FakeCard) -> None:
        start = len(gateway.log_lines)
        card.result = top_up(id="nonsense")
        inline = body_with_literals('number: "%s", expiryMonth: 1, expiryYear: 2031, cvv: "%s"')
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.http.headers, trust_env=False) as http:
            responses = [
                await send_rest(http, json.dumps({"amount": "1", "card": VALID})),
                await send_graphql(http, body_with_variables(VALID)),
                await send_graphql(http, inline),
            ]
        assert ["INTERNAL" in response.text for response in responses] == [True] * 3
        for response in responses:
            assert_hidden(response)
        lines = await logs_since(gateway, start)
        assert sum("unexpected error" in line for line in lines) == 3
        assert any("badly formed hexadecimal UUID string" in line for line in lines), "the traceback is not logged"
        assert not HIDDEN.search("\n".join(lines))
        assert [request.card.number for request in card.requests] == [NUMBER] * 3
