"""A card's number and code come out of the gateway nowhere but at the card service: in no answer and in no log."""

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
from tests.integration.gateway.gateway_process import Gateway, running
from tests.integration.gateway.logs import logs_since
from wallet.errors import InvalidInput

NUMBER, CVV = "5105105105105100", "739182645"
"""The code is longer than any, so that it occurs nowhere by chance; the gateway does not mind."""

HIDDEN = re.compile("5105 ?105|" + r"\W*".join(CVV[:6]))
"""The number, by its beginning, and the code, as a text or as a list."""

HEADERS = {"Content-Type": "application/json"}

GOOD = {"number": NUMBER, "expiryMonth": 12, "expiryYear": 2031, "cvv": CVV}
BAD: dict[str, Any] = {
    "number is an integer": GOOD | {"number": int(NUMBER)},
    "number is a fraction": GOOD | {"number": float(NUMBER)},
    "number is a list": GOOD | {"number": [NUMBER]},
    "number is an object": GOOD | {"number": {NUMBER: NUMBER}},
    "number is too long": GOOD | {"number": NUMBER * 20},
    "number is far too long": GOOD | {"number": NUMBER * 5_000},
    "number has spaces": GOOD | {"number": "5105 1051 0510 5100"},
    "number is no Unicode": GOOD | {"number": NUMBER + "\ud800"},
    "cvv is a list": GOOD | {"cvv": [int(digit) for digit in CVV]},
    "cvv is an integer": GOOD | {"cvv": int(CVV)},
    "cvv is null": GOOD | {"cvv": None},
    "number is in another field": GOOD | {"expiryMonth": NUMBER, "expiryYear": int(NUMBER)},
    "another field is wrong": GOOD | {"expiryMonth": "May"},
    "a field is missing": {"number": NUMBER, "cvv": CVV, "expiryMonth": 12},
    "there is one more field": GOOD | {"name": NUMBER},
    "a name is wrong": {"nubmer": NUMBER, "cvv": CVV, "expiryMonth": 12, "expiryYear": 2031},
    "number is a name": GOOD | {NUMBER: CVV},
    "card is the number": NUMBER,
    "card is a list": [GOOD, GOOD],
}
MALFORMED = {
    "is cut": '{"amount": "1", "card": {"number": "%s", "cvv": "%s"',
    "has an open string": '{"amount": "1", "card": {"number": "%s, "cvv": %s}}',
    "is not quoted": '{"amount": "1", "card": {number: %s, cvv: %s}}',
    "is a list": '["%s", "%s"]',
    "is a text": '"%s %s"',
    "is no JSON": "number=%s&cvv=%s",
    "is no Unicode": '{"number": "%s", "cvv": "%s\udcff"}',
}
LITERALS = {
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
def refused(bank: FakeBank, card: FakeCard) -> None:
    """What gets as far as the card service is refused there."""
    card.answer = InvalidInput.for_field("card.number", "is no card's number")


def hides(answer: httpx.Response) -> None:
    assert not HIDDEN.search(answer.text), answer.text


@pytest.fixture(autouse=True)
async def nothing_is_said(gateway: Gateway) -> AsyncIterator[None]:
    """Reads all that the gateway logs meanwhile, and what the test was about is not in it."""
    began = len(gateway.said)
    yield
    said = await logs_since(gateway, began)
    assert not [line for line in said if HIDDEN.search(line)]


async def rest(http: httpx.AsyncClient, body: str) -> httpx.Response:
    headers = HEADERS | {"Idempotency-Key": "k", "Connection": "close"}
    return await http.post(f"/accounts/{ACCOUNT}/topup", content=body.encode(errors="surrogateescape"), headers=headers)


async def graph(http: httpx.AsyncClient, body: str, **headers: str) -> httpx.Response:
    return await http.post("/graphql", content=body.encode(errors="surrogateescape"), headers=HEADERS | headers)


def by_variable(card: Any, **more: Any) -> str:
    given = {"accountId": str(ACCOUNT), "amount": "1", "idempotencyKey": "k", "card": card}
    return json.dumps({"query": MUTATION, "variables": {"input": given | more}})


def by_literal(card: str) -> str:
    return json.dumps({"query": INLINE.format(account=ACCOUNT, card=card % (NUMBER, CVV))})


class TestRest:
    @pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
    async def test_refuses_a_bad_card_without_a_word_of_it(self, gateway: Gateway, bad: Any) -> None:
        refused = await rest(gateway.http, json.dumps({"amount": "1", "card": bad}))
        assert refused.status_code in {400, 413}
        hides(refused)

    @pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
    async def test_refuses_a_body_that_is_none(self, gateway: Gateway, body: str) -> None:
        refused = await rest(gateway.http, body % (NUMBER, CVV))
        assert refused.status_code == 400
        hides(refused)


class TestGraphQL:
    @pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
    async def test_refuses_a_bad_card_in_variables(self, gateway: Gateway, bad: Any) -> None:
        hides(await graph(gateway.http, by_variable(bad)))

    @pytest.mark.parametrize("more", [{"amount": 1}, {"idempotencyKey": None}, {"accountId": [1]}, {"x": 1}], ids=str)
    async def test_refuses_what_is_around_a_good_card(self, gateway: Gateway, more: dict[str, Any]) -> None:
        refused = await graph(gateway.http, by_variable(GOOD, **more))
        assert refused.json()["errors"][0]["extensions"]["code"] == "INVALID_GRAPHQL"
        hides(refused)

    @pytest.mark.parametrize("bad", LITERALS.values(), ids=LITERALS)
    async def test_refuses_a_bad_card_in_the_text(self, gateway: Gateway, bad: str) -> None:
        hides(await graph(gateway.http, by_literal(bad)))

    @pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
    async def test_refuses_a_body_that_is_none(self, gateway: Gateway, body: str) -> None:
        refused = await graph(gateway.http, body % (NUMBER, CVV))
        assert refused.status_code == 400
        hides(refused)

    async def test_says_where_and_what_is_wrong_all_the_same(self, gateway: Gateway) -> None:
        (error,) = (await graph(gateway.http, by_variable(BAD["a name is wrong"]))).json()["errors"][1:]
        assert "'$input' has invalid value at .card" in error["message"]
        assert "'nubmer'" in error["message"]

    @pytest.mark.parametrize("bad", LITERALS.values(), ids=LITERALS)
    async def test_refuses_it_on_a_websocket_and_by_server_sent_events(self, gateway: Gateway, bad: str) -> None:
        hides(await graph(gateway.http, by_literal(bad), Accept="text/event-stream"))
        url = f"{gateway.url.replace('http', 'ws')}/graphql"
        async with connect(url, subprotocols=["graphql-transport-ws"]) as connection:  # type: ignore[list-item]
            payload = {"authorization": f"Bearer {gateway.token}"}
            await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
            await connection.recv()
            subscribe = {"id": "1", "type": "subscribe", "payload": json.loads(by_literal(bad))}
            await connection.send(json.dumps(subscribe))
            try:
                assert not HIDDEN.search(str(await connection.recv()))
            except ConnectionClosed as closed:
                assert not HIDDEN.search(str(closed))  # noqa: PT017  one of the two ways to be refused


class TestDefect:
    """The card service answers nonsense: an unexpected error, with what the gateway has at hand at the time."""

    async def test_is_logged_without_what_was_at_hand(self, gateway: Gateway, card: FakeCard) -> None:
        await self.happen(gateway, card)

    async def test_is_told_to_people_without_it_too(
        self, services: tuple[str, FakeBank, FakeCard], keys: Keys, tmp_path: Path, card: FakeCard
    ) -> None:
        async with running(keys, tmp_path, bank=services[0], card=services[0], log_format="console") as gateway:
            await self.happen(gateway, card)

    async def happen(self, gateway: Gateway, card: FakeCard) -> None:
        began = len(gateway.said)
        card.answer = top_up(id="nonsense")
        inline = by_literal('number: "%s", expiryMonth: 1, expiryYear: 2031, cvv: "%s"')
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.http.headers, trust_env=False) as http:
            answers = [
                await rest(http, json.dumps({"amount": "1", "card": GOOD})),
                await graph(http, by_variable(GOOD)),
                await graph(http, inline),
            ]
        assert ["INTERNAL" in answer.text for answer in answers] == [True] * 3
        for answer in answers:
            hides(answer)
        said = await logs_since(gateway, began)
        assert sum("unexpected error" in line for line in said) == 3
        assert any("badly formed hexadecimal UUID string" in line for line in said), "the traceback is there"
        assert not HIDDEN.search("\n".join(said))
        assert [asked.card.number for asked in card.asked] == [NUMBER] * 3
