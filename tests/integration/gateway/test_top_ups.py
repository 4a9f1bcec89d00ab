"""Card top-ups over REST and GraphQL, over a fake card service."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect

from protos.wallet.card.v1 import card_pb2
from stack.ports import HOST, free_ports
from tests.conftest import Keys
from tests.integration.gateway.fake_services import ACCOUNT, CLEARING, DEPOSIT, FakeBank, FakeCard, top_up
from tests.integration.gateway.gateway_process import Gateway, run_gateway_process
from wallet.errors import (
    AccountClosed,
    AccountNotFound,
    CurrencyMismatch,
    DeadlineExceeded,
    FieldViolation,
    IdempotencyConflict,
    InternalError,
    InvalidInput,
    PermissionDenied,
    ResourceExhausted,
    TopUpDeclinesExceeded,
    TopUpLimitExceeded,
    TopUpNotFound,
    Unavailable,
    WalletError,
)

CARD = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2031, "cvv": "123"}
LIMIT = TopUpLimitExceeded("DAY", "100000.00", "250.50", "RUB")

TOP_UP = """
    mutation TopUp($input: TopUpAccountInput!) {
      topUpAccount(input: $input) {
        __typename
        ... on TopUpAccountSuccess { topUp { ...All } }
        ... on CardDeclined { declineCode topUp { ...All } }
        ... on Error { code message }
        ... on InvalidInput { fields { field message } }
        ... on AccountNotFound { accountId }
        ... on AccountClosed { accountId }
        ... on CurrencyMismatch { accountId currency }
        ... on TopUpDeclinesExceeded { retryAfterSeconds }
        ... on TopUpLimitExceeded { limit { amount currency } available { amount currency } period }
        ... on IdempotencyConflict { idempotencyKey }
      }
    }
    fragment All on TopUp {
      id amount { amount currency } status card { brand lastFour } failure createdAt updatedAt
      account { id balance { amount } } transfer { id sender { id } recipient { id } amount { amount } createdAt }
    }
"""
ONE = "query One($id: ID!) { topUp(id: $id) { id status } }"
LIST = """
    query List($id: ID!, $first: Int, $after: String, $last: Int, $before: String) {
      account(id: $id) {
        topUps(first: $first, after: $after, last: $last, before: $before) {
          edges { cursor node { id account { id } } }
          pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
        }
      }
    }
"""
UPDATED = "subscription Updated($id: ID!) { topUpUpdated(id: $id) { status failure } }"


async def post(gateway: Gateway, **body: Any) -> httpx.Response:
    content = json.dumps({"amount": "10.00", "card": CARD} | body)  # httpx's own encoder rejects lone surrogates
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    return await gateway.http.post(f"/accounts/{ACCOUNT}/topup", content=content, headers=headers)


async def query(gateway: Gateway, text: str, **variables: Any) -> dict[str, Any]:
    response = await gateway.http.post("/graphql", json={"query": text, "variables": variables})
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


async def mutate(gateway: Gateway, **more: Any) -> dict[str, Any]:
    arguments = {"accountId": str(ACCOUNT), "amount": "10.00", "card": CARD, "idempotencyKey": "k"} | more
    response = await query(gateway, TOP_UP, input=arguments)
    assert "errors" not in response, response
    result: dict[str, Any] = response["data"]["topUpAccount"]
    return result


async def feed(gateway: Gateway, id_: str) -> AsyncIterator[dict[str, Any]]:
    """Subscribe over a WebSocket, and yield the payloads until the subscription completes."""
    url = f"{gateway.url.replace('http', 'ws')}/graphql"
    async with connect(url, subprotocols=["graphql-transport-ws"]) as connection:  # type: ignore[list-item]
        payload = {"authorization": f"Bearer {gateway.token}"}
        await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert json.loads(await connection.recv())["type"] == "connection_ack"
        subscribe = {"query": UPDATED, "variables": {"id": id_}}
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": subscribe}))
        async for text in connection:
            message = json.loads(text)
            if message["type"] == "complete":
                return
            yield message["payload"]


async def collect_statuses(gateway: Gateway, id_: str) -> list[Any]:
    """Return the statuses of a subscription until it completes."""
    async with asyncio.timeout(10):
        return [payload["data"]["topUpUpdated"]["status"] async for payload in feed(gateway, id_)]


class TestTopUpOverRest:
    async def test_card_service_gets_the_request_as_sent(self, gateway: Gateway, card: FakeCard) -> None:
        await post(gateway, amount="10.5", currency="USD")
        assert card.requests == [
            card_pb2.ProcessCardTopUpRequest(
                account_id=str(ACCOUNT),
                amount={"currency_code": "USD", "units": 10, "nanos": 500_000_000},
                card=card_pb2.CardDetails(number="4242424242424242", expiry_month=12, expiry_year=2031, cvv="123"),
                idempotency_key="k",
            ),
        ]
        assert card.callers == ["alice"]

    async def test_card_service_gets_the_client_address_with_the_token_of_the_gateway(
        self, gateway: Gateway, card: FakeCard, keys: Keys
    ) -> None:
        await post(gateway)
        await mutate(gateway)
        for metadata in card.metadata:
            assert metadata["x-client-address"] == "127.0.0.1"
            prover = await keys.verifier().verify(metadata["x-client-address-token"])
            assert (prover.is_service, prover.subject) == (True, "gateway")
        assert len(card.metadata) == 2

    async def test_address_that_a_client_claims_is_not_passed_on(self, gateway: Gateway, card: FakeCard) -> None:
        claims = {"X-Client-Address": "8.8.8.8", "X-Forwarded-For": "8.8.8.8", "Idempotency-Key": "k"}
        await gateway.http.post(f"/accounts/{ACCOUNT}/topup", json={"amount": "1", "card": CARD}, headers=claims)
        (metadata,) = card.metadata
        assert metadata["x-client-address"] == "127.0.0.1"

    async def test_too_many_declines_are_429_with_the_time_to_wait(self, gateway: Gateway, card: FakeCard) -> None:
        card.result = TopUpDeclinesExceeded("1800")
        refused = await post(gateway)
        assert (refused.status_code, refused.json()["code"]) == (429, "TOP_UP_DECLINES_EXCEEDED")
        assert refused.headers["Retry-After"] == "1800"

    async def test_top_up_is_accepted_with_its_state_and_location(self, gateway: Gateway, card: FakeCard) -> None:
        card.result = top_up("CAPTURED")
        created = await post(gateway)
        assert created.status_code == 202
        assert created.json() == {
            "id": card.result.id,
            "accountId": str(ACCOUNT),
            "amount": "10.00",
            "currency": "RUB",
            "status": "CAPTURED",
            "card": {"brand": "VISA", "lastFour": "4242"},
            "createdAt": "2026-01-02T03:04:05.678901Z",
            "updatedAt": "2026-01-02T03:04:06.789012Z",
        }
        card.result.MergeFrom(card_pb2.TopUp(status=card_pb2.TOP_UP_STATUS_COMPLETED, transfer_id=str(DEPOSIT)))
        read = await gateway.http.get(created.headers["location"])
        assert (read.status_code, read.json()["status"], read.json()["transferId"]) == (200, "COMPLETED", str(DEPOSIT))

    @pytest.mark.parametrize(
        ("status", "failure"), [("DECLINED", "DO_NOT_HONOR"), ("REFUNDED", "ACCOUNT_CLOSED"), ("NEEDS_REVIEW", "")]
    )
    async def test_failed_top_up_is_accepted_with_its_failure(
        self, gateway: Gateway, card: FakeCard, status: str, failure: str
    ) -> None:
        card.result = top_up(status, failure=failure)
        created = await post(gateway)
        assert (created.status_code, created.json()["status"], created.json().get("failure", "")) == (
            202,
            status,
            failure,
        )

    @pytest.mark.parametrize(
        ("refusal", "status"),
        [
            (InvalidInput.for_field("card.number", "is not a card number"), 400),
            (AccountClosed(str(ACCOUNT)), 400),
            (CurrencyMismatch(str(ACCOUNT), "USD"), 400),
            (LIMIT, 400),
            (PermissionDenied(), 403),
            (AccountNotFound(str(ACCOUNT)), 404),
            (IdempotencyConflict("k"), 422),
            (ResourceExhausted(), 429),
            (Unavailable("the card service"), 503),
            (DeadlineExceeded("the card service"), 504),
        ],
        ids=lambda value: getattr(value, "reason", value),
    )
    async def test_error_of_the_card_service_is_a_problem(
        self, gateway: Gateway, card: FakeCard, refusal: WalletError, status: int
    ) -> None:
        card.result = refusal
        refused = await post(gateway)
        assert (refused.status_code, refused.json()["code"]) == (status, refusal.reason)
        assert refused.json()["detail"] == refusal.message

    async def test_exceeded_limit_has_the_remaining_amount(self, gateway: Gateway, card: FakeCard) -> None:
        card.result = LIMIT
        problem = (await post(gateway)).json()
        remaining = {"limit": "100000.00", "available": "250.50", "currency": "RUB", "period": "DAY"}
        assert problem | remaining == problem

    async def test_invalid_field_is_named(self, gateway: Gateway, card: FakeCard) -> None:
        for wrong, field in (
            ({"amount": "1e3"}, "amount"),
            ({"currency": "XXX"}, "currency"),
            ({"card": CARD | {"number": "4242 4242 4242 4242"}}, "card.number"),
            ({"card": CARD | {"number": 4242424242424242}}, "card.number"),
            ({"card": CARD | {"number": "4242\ud800"}}, "body"),
            ({"card": CARD | {"expiryMonth": 13}}, "card.expiryMonth"),
            ({"card": CARD | {"expiryMonth": "12"}}, "card.expiryMonth"),
            ({"card": CARD | {"expiryMonth": True}}, "card.expiryMonth"),
            ({"card": CARD | {"expiryYear": 31}}, "card.expiryYear"),
            ({"card": CARD | {"cvv": "12x"}}, "card.cvv"),
            ({"card": CARD | {"name": "Alice"}}, "card"),
            ({"card": {"number": "4242424242424242", "expiryMonth": 1, "expiryYear": 2031}}, "card.cvv"),
            ({"card": "4242424242424242"}, "card"),
        ):
            refused = await post(gateway, **wrong)
            assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_INPUT"), wrong
            assert [each["field"] for each in refused.json()["fields"]] == [field]
        assert card.requests == []

    async def test_request_without_key_token_or_json_or_of_large_size_is_refused(
        self, gateway: Gateway, card: FakeCard
    ) -> None:
        path, body, key = f"/accounts/{ACCOUNT}/topup", {"amount": "1", "card": CARD}, {"Idempotency-Key": "k"}
        assert (await gateway.http.post(path, json=body)).status_code == 400
        assert (await gateway.http.post(path, json=body, headers=key | {"Authorization": ""})).status_code == 401
        form = key | {"Content-Type": "text/plain"}
        assert (await gateway.http.post(path, content=json.dumps(body), headers=form)).status_code == 415
        assert (await gateway.http.post(path, json=body | {"x": "x" * 70_000}, headers=key)).status_code == 413
        assert card.requests == []

    async def test_top_up_of_another_account_and_unknown_top_up_are_not_found(
        self, gateway: Gateway, card: FakeCard
    ) -> None:
        elsewhere = await gateway.http.get(f"/accounts/{uuid4()}/topups/{top_up().id}")
        card.result = TopUpNotFound("x")
        nowhere = await gateway.http.get(f"/accounts/{ACCOUNT}/topups/{uuid4()}")
        for response in (elsewhere, nowhere):
            assert (response.status_code, response.json()["code"]) == (404, "TOP_UP_NOT_FOUND")


class TestTopUpOverGraphQL:
    async def test_result_has_the_top_up_with_its_account_and_transfer(
        self, gateway: Gateway, card: FakeCard, bank: FakeBank
    ) -> None:
        card.result = top_up("COMPLETED", transfer_id=str(DEPOSIT))
        done = await mutate(gateway)
        assert done == {
            "__typename": "TopUpAccountSuccess",
            "topUp": {
                "id": card.result.id,
                "amount": {"amount": "10.00", "currency": "RUB"},
                "status": "COMPLETED",
                "card": {"brand": "VISA", "lastFour": "4242"},
                "failure": None,
                "createdAt": "2026-01-02T03:04:05.678901+00:00",
                "updatedAt": "2026-01-02T03:04:06.789012+00:00",
                "account": {"id": str(ACCOUNT), "balance": {"amount": "990.00"}},
                "transfer": {
                    "id": str(DEPOSIT),
                    "sender": {"id": str(CLEARING)},
                    "recipient": {"id": str(ACCOUNT)},
                    "amount": {"amount": "10.00"},
                    "createdAt": "1970-01-01T00:00:00+00:00",
                },
            },
        }
        assert len(bank.requests) == 2, "expected one call for the account and one for the transfer"
        (request,) = card.requests
        assert request.card == card_pb2.CardDetails(
            number="4242424242424242", expiry_month=12, expiry_year=2031, cvv="123"
        )
        assert (request.account_id, request.amount.currency_code, request.idempotency_key) == (str(ACCOUNT), "RUB", "k")

    async def test_declined_card_is_a_typed_error_with_its_top_up(self, gateway: Gateway, card: FakeCard) -> None:
        card.result = top_up("DECLINED", failure="INSUFFICIENT_FUNDS")
        declined = await mutate(gateway)
        assert (declined["__typename"], declined["code"]) == ("CardDeclined", "CARD_DECLINED")
        assert declined["declineCode"] == declined["topUp"]["failure"] == "INSUFFICIENT_FUNDS"
        assert (declined["topUp"]["status"], declined["topUp"]["transfer"]) == ("DECLINED", None)

    @pytest.mark.parametrize(
        ("refusal", "typename", "data"),
        [
            (
                InvalidInput((FieldViolation("card.number", "is wrong"), FieldViolation("card.cvv", "is, too"))),
                "InvalidInput",
                {
                    "fields": [
                        {"field": "card.number", "message": "is wrong"},
                        {"field": "card.cvv", "message": "is, too"},
                    ]
                },
            ),
            (AccountNotFound(str(ACCOUNT)), "AccountNotFound", {"accountId": str(ACCOUNT)}),
            (AccountClosed(str(ACCOUNT)), "AccountClosed", {"accountId": str(ACCOUNT)}),
            (CurrencyMismatch(str(ACCOUNT), "USD"), "CurrencyMismatch", {"currency": "USD"}),
            (
                LIMIT,
                "TopUpLimitExceeded",
                {
                    "limit": {"amount": "100000.00", "currency": "RUB"},
                    "available": {"amount": "250.50", "currency": "RUB"},
                    "period": "DAY",
                },
            ),
            (TopUpDeclinesExceeded("1800"), "TopUpDeclinesExceeded", {"retryAfterSeconds": 1800}),
            (IdempotencyConflict("k"), "IdempotencyConflict", {"idempotencyKey": "k"}),
        ],
        ids=lambda value: getattr(value, "reason", ""),
    )
    async def test_errors_in_the_result_union_are_data(
        self, gateway: Gateway, card: FakeCard, refusal: WalletError, typename: str, data: dict[str, Any]
    ) -> None:
        card.result = refusal
        refused = await mutate(gateway)
        assert (refused["__typename"], refused["code"], refused["message"]) == (
            typename,
            refusal.reason,
            refusal.message,
        )
        assert refused | data == refused

    @pytest.mark.parametrize(
        "error",
        [PermissionDenied(), ResourceExhausted(), Unavailable("x"), DeadlineExceeded("x"), InternalError()],
        ids=lambda error: error.reason,
    )
    async def test_errors_outside_the_result_union_have_their_code(
        self, gateway: Gateway, card: FakeCard, error: WalletError
    ) -> None:
        card.result = error
        response = await query(
            gateway,
            TOP_UP,
            input={"accountId": str(ACCOUNT), "amount": "1", "card": CARD, "idempotencyKey": "k"},
        )
        assert (response["data"], response["errors"][0]["extensions"]["code"]) == (None, error.reason)

    async def test_all_invalid_fields_are_named(self, gateway: Gateway, card: FakeCard) -> None:
        wrong = await mutate(gateway, accountId="42", amount="-", card=CARD | {"number": 4242424242424242, "cvv": [1]})
        assert wrong["__typename"] == "InvalidInput"
        assert [each["field"] for each in wrong["fields"]] == ["accountId", "amount", "card.number", "card.cvv"]
        assert card.requests == []

    async def test_top_up_is_read_by_id_and_unknown_id_is_null(self, gateway: Gateway, card: FakeCard) -> None:
        card.result = top_up("VOIDED")
        known = await query(gateway, ONE, id=card.result.id)
        assert known == {"data": {"topUp": {"id": card.result.id, "status": "VOIDED"}}}
        assert await query(gateway, ONE, id=str(uuid4())) == {"data": {"topUp": None}}

    async def test_several_top_ups_are_read_in_one_rpc(self, gateway: Gateway, card: FakeCard) -> None:
        card.result = top_up()
        text = "query($a: ID!, $b: ID!) { a: topUp(id: $a) { id } b: topUp(id: $b) { id } again: topUp(id: $a) { id } }"
        response = await query(gateway, text, a=card.result.id, b=str(uuid4()))
        assert response["data"] == {"a": {"id": card.result.id}, "b": None, "again": {"id": card.result.id}}
        assert [len(request.ids) for request in card.requests] == [2]

    async def test_top_ups_of_an_account_are_a_relay_connection(
        self, gateway: Gateway, card: FakeCard, bank: FakeBank
    ) -> None:
        card.listed = [top_up() for _ in range(5)]
        ids = [each.id for each in card.listed]

        async def page(**arguments: Any) -> dict[str, Any]:
            response = await query(gateway, LIST, id=str(ACCOUNT), **arguments)
            assert "errors" not in response, response
            connection: dict[str, Any] = response["data"]["account"]["topUps"]
            return connection

        def shown(page: dict[str, Any]) -> list[str]:
            return [edge["node"]["id"] for edge in page["edges"]]

        assert shown(await page()) == ids
        first = await page(first=2)
        assert shown(first) == ids[:2]
        assert first["edges"][0]["node"]["account"] == {"id": str(ACCOUNT)}
        assert (first["pageInfo"]["hasNextPage"], first["pageInfo"]["hasPreviousPage"]) == (True, False)
        end = await page(last=2)
        assert shown(end) == ids[-2:]
        assert (end["pageInfo"]["hasNextPage"], end["pageInfo"]["hasPreviousPage"]) == (False, True)
        assert first["pageInfo"]["startCursor"] == first["edges"][0]["cursor"]
        second = await page(first=2, after=first["pageInfo"]["endCursor"])
        assert shown(second) == ids[2:4]
        assert (await page(last=2, before=second["pageInfo"]["startCursor"]))["edges"] == first["edges"]
        assert await page(first=2, after=(await page())["pageInfo"]["endCursor"]) == {
            "edges": [],
            "pageInfo": {"hasNextPage": False, "hasPreviousPage": True, "startCursor": None, "endCursor": None},
        }

    async def test_accounts_and_transfers_of_a_page_are_one_rpc_each_and_an_unknown_one_is_null(
        self, gateway: Gateway, card: FakeCard, bank: FakeBank
    ) -> None:
        unknown, other = str(uuid4()), str(uuid4())
        card.listed = [
            top_up("COMPLETED", account_id=account, transfer_id=transfer)
            for account, transfer in ((str(ACCOUNT), other), (unknown, str(DEPOSIT)), (str(ACCOUNT), str(DEPOSIT)))
        ]
        text = """
            query($id: ID!) {
              account(id: $id) {
                topUps { edges { node { account { id balance { amount } } transfer { id amount { amount } } } } }
              }
            }
        """
        response = await query(gateway, text, id=str(ACCOUNT))
        nodes = [edge["node"] for edge in response["data"]["account"]["topUps"]["edges"]]
        mine = {"id": str(ACCOUNT), "balance": {"amount": "990.00"}}
        assert [node["account"] for node in nodes] == [mine, None, mine]
        assert [node["transfer"]["id"] for node in nodes] == [other, str(DEPOSIT), str(DEPOSIT)]
        assert [(error["path"][4:6], error["extensions"]["code"]) for error in response["errors"]] == [
            (["node", "account"], "ACCOUNT_NOT_FOUND")
        ]
        assert [sorted(request.ids) for request in bank.requests[1:]] in (
            [sorted([str(ACCOUNT), unknown]), sorted([other, str(DEPOSIT)])],
            [sorted([other, str(DEPOSIT)]), sorted([str(ACCOUNT), unknown])],
        ), "expected one call for the page's accounts and one for its transfers, after that for the account itself"

    async def test_invalid_page_argument_is_named(self, gateway: Gateway, card: FakeCard, bank: FakeBank) -> None:
        for arguments, field in (
            ({"first": 0}, "first"),
            ({"last": 1_001}, "last"),
            ({"first": 1, "before": "x"}, "before"),
            ({"after": "djE"}, "after"),  # cursor of an operation
        ):
            response = await query(gateway, LIST, id=str(ACCOUNT), **arguments)
            assert [each["field"] for each in response["errors"][0]["extensions"]["fields"]] == [field]
            assert response["data"]["account"]["topUps"] is None

    async def test_account_is_read_without_top_ups_while_the_card_service_is_down(
        self, gateway: Gateway, card: FakeCard, bank: FakeBank
    ) -> None:
        card.result = Unavailable("the card service")
        text = "query($id: ID!) { account(id: $id) { balance { amount } topUps { edges { cursor } } } }"
        response = await query(gateway, text, id=str(ACCOUNT))
        assert response["data"]["account"] == {"balance": {"amount": "990.00"}, "topUps": None}
        assert [error["extensions"]["code"] for error in response["errors"]] == ["UNAVAILABLE"]


class TestTopUpSubscription:
    async def test_subscription_has_the_current_state_and_each_change(self, gateway: Gateway, card: FakeCard) -> None:
        card.streams = [[top_up("CREATED", 1), top_up("CAPTURED", 3), top_up("COMPLETED", 4)]]
        assert await collect_statuses(gateway, str(uuid4())) == ["CREATED", "CAPTURED", "COMPLETED"]

    async def test_subscription_resumes_without_a_repeated_state(self, gateway: Gateway, card: FakeCard) -> None:
        unavailable = Unavailable("the card service")
        card.streams = [
            [top_up("CREATED", 1), unavailable],
            [unavailable],
            [top_up("CREATED", 1), top_up("DECLINED", 2)],
        ]
        assert await collect_statuses(gateway, str(uuid4())) == ["CREATED", "DECLINED"]

    async def test_subscription_to_an_unknown_top_up_is_refused(self, gateway: Gateway, card: FakeCard) -> None:
        card.streams = [[TopUpNotFound("x")]]
        for id_, code in ((str(uuid4()), "TOP_UP_NOT_FOUND"), ("42", "INVALID_INPUT")):
            async with asyncio.timeout(10):
                (payload,) = [payload async for payload in feed(gateway, id_)]
            assert [error["extensions"]["code"] for error in payload["errors"]] == [code]


class TestWithoutTheCardService:
    @pytest.mark.slow
    async def test_gateway_serves_transfers_without_the_card_service(
        self, services: tuple[str, FakeBank, FakeCard], keys: Keys, tmp_path: Path
    ) -> None:
        unused = f"{HOST}:{free_ports(1)[0]}"
        async with run_gateway_process(keys, tmp_path, bank=services[0], card=unused) as gateway:
            created = await gateway.http.post(
                f"/accounts/{ACCOUNT}/transfers",
                json={"recipientId": str(uuid4()), "amount": "1"},
                headers={"Idempotency-Key": "k"},
            )
            assert created.status_code == 201
            refused = await post(gateway)
            assert (refused.status_code, refused.json()["code"]) == (503, "UNAVAILABLE")
