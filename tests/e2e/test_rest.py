"""REST API of the whole system."""

import asyncio
import json
import uuid
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.e2e.users import NewUser, OpenAccount, User
from tests.waiting import until

UNKNOWN_ACCOUNT = "00000000-0000-4000-8000-000000000000"


class TestTransfer:
    async def test_transfer_moves_money_and_returns_its_location(self, alice: User, bob: User) -> None:
        made = await alice.transfer(bob.account, "10.00", currency="RUB")

        assert made.status_code == 201
        assert made.json() | {"senderId": alice.account, "recipientId": bob.account, "amount": "10.00"} == made.json()
        assert (await alice.balance(), await bob.balance()) == (Decimal("990.00"), Decimal("510.00"))
        read = await alice.http.get(made.headers["location"])
        assert (read.status_code, read.json()) == (200, made.json())

    async def test_transfer_is_readable_by_both_sides_only(
        self,
        alice: User,
        bob: User,
        new_user: NewUser,
    ) -> None:
        made = (await alice.transfer(bob.account, "1.00")).json()
        eve = await new_user()

        assert (await bob.http.get(f"/accounts/{bob.account}/transfers/{made['id']}")).status_code == 200
        for account in (eve.account, alice.account):
            assert (await eve.http.get(f"/accounts/{account}/transfers/{made['id']}")).status_code == 404

    async def test_repeated_key_has_the_same_response_and_one_effect(self, alice: User, bob: User) -> None:
        responses = await asyncio.gather(*(alice.transfer(bob.account, "10.00", key="once") for _ in range(20)))

        assert {response.status_code for response in responses} == {201}
        assert len({response.text for response in responses}) == 1
        assert await alice.balance() == Decimal("990.00")

    async def test_refusal_is_replayed_after_the_balance_has_grown(self, alice: User, bob: User) -> None:
        refused = await alice.transfer(bob.account, "1400.00", key="pinned")
        await bob.transfer(alice.account, "500.00")

        again = await alice.transfer(bob.account, "1400.00", key="pinned")

        assert (refused.status_code, again.status_code) == (400, 400)
        assert again.json()["available"] == refused.json()["available"] == "1000.00"

    async def test_key_with_another_body_is_a_conflict(self, alice: User, bob: User) -> None:
        await alice.transfer(bob.account, "10.00", key="k")

        conflict = await alice.transfer(bob.account, "11.00", key="k")

        assert (conflict.status_code, conflict.json()["code"]) == (422, "IDEMPOTENCY_CONFLICT")
        assert await alice.balance() == Decimal("990.00")

    async def test_keys_are_separate_per_caller(self, alice: User, bob: User) -> None:
        assert (await alice.transfer(bob.account, "10.00", key="shared")).status_code == 201
        assert (await bob.transfer(alice.account, "20.00", key="shared")).status_code == 201

    async def test_overdraft_is_refused_with_the_balance(self, alice: User, bob: User) -> None:
        refused = await alice.transfer(bob.account, "1000.01")

        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (400, "INSUFFICIENT_FUNDS")
        assert (problem["needed"], problem["available"], problem["currency"]) == ("1000.01", "1000.00", "RUB")

    async def test_unknown_sender_is_not_found(self, alice: User) -> None:
        refused = await alice.transfer(alice.account, "1.00", sender=UNKNOWN_ACCOUNT)
        assert (refused.status_code, refused.json()["code"]) == (404, "ACCOUNT_NOT_FOUND")

    async def test_unknown_recipient_is_not_found(self, alice: User) -> None:
        refused = await alice.transfer(UNKNOWN_ACCOUNT, "1.00")
        assert (refused.status_code, refused.json()["code"]) == (404, "ACCOUNT_NOT_FOUND")

    async def test_transfer_from_another_users_account_is_not_found(self, alice: User, bob: User) -> None:
        refused = await alice.transfer(alice.account, "1.00", sender=bob.account)
        assert (refused.status_code, refused.json()["code"]) == (404, "ACCOUNT_NOT_FOUND")
        assert await bob.balance() == Decimal("500.00")

    async def test_transfer_between_currencies_is_refused(self, alice: User, bob: User) -> None:
        refused = await alice.transfer(bob.account, "1.00", currency="USD")
        assert (refused.status_code, refused.json()["code"]) == (400, "CURRENCY_MISMATCH")

    @pytest.mark.parametrize(
        "amount",
        ["-1.00", "0", "0.00", "1.001", "9" * 19, "1000000000000.01", "NaN", "Infinity", "1e2", "ten", "", " 1", "1,5"],
    )
    async def test_invalid_amount_is_named(self, alice: User, bob: User, amount: str) -> None:
        refused = await alice.transfer(bob.account, amount)
        assert refused.status_code == 400, refused.text
        assert [field["field"] for field in refused.json()["fields"]] == ["amount"]

    @pytest.mark.parametrize("amount", [1, 1.5, None, ["1.00"], {"amount": "1.00"}])
    async def test_amount_that_is_not_a_string_is_named(self, alice: User, bob: User, amount: Any) -> None:
        refused = await alice.transfer(bob.account, amount)
        assert [field["field"] for field in refused.json()["fields"]] == ["amount"]

    async def test_transfer_to_the_same_account_is_refused(self, alice: User) -> None:
        refused = await alice.transfer(alice.account, "1.00")
        assert refused.status_code == 400
        assert [field["field"] for field in refused.json()["fields"]] == ["recipientId"]

    async def test_malformed_ids_are_refused(self, alice: User, bob: User) -> None:
        refused = await alice.transfer("42", "1.00")
        assert (refused.status_code, refused.json()["fields"][0]["field"]) == (400, "recipientId")
        refused = await alice.transfer(bob.account, "1.00", sender="42")
        assert (refused.status_code, refused.json()["fields"][0]["field"]) == (400, "accountId")

    @pytest.mark.parametrize("key", [b"", b"k" * 256, "ключ".encode(), b"a\tb"])
    async def test_invalid_idempotency_key_is_refused(self, alice: User, bob: User, key: bytes) -> None:
        refused = await alice.http.post(
            f"/accounts/{alice.account}/transfers",
            json={"recipientId": bob.account, "amount": "1.00"},
            headers={b"Idempotency-Key": key},
        )
        assert refused.status_code == 400
        assert await alice.balance() == Decimal("1000.00")

    async def test_missing_idempotency_key_is_refused(self, alice: User, bob: User) -> None:
        body = {"recipientId": bob.account, "amount": "1.00"}
        refused = await alice.http.post(f"/accounts/{alice.account}/transfers", json=body)
        assert [field["field"] for field in refused.json()["fields"]] == ["Idempotency-Key"]

    async def test_all_invalid_fields_are_named(self, alice: User) -> None:
        refused = await alice.transfer("42", "x", currency="rub", extra=1)
        # A field that the contract does not have is reported as `body`, because its name may contain card data.
        assert {field["field"] for field in refused.json()["fields"]} == {"recipientId", "amount", "currency", "body"}

    async def test_concurrent_transfers_never_overdraw_and_keep_the_sum(self, alice: User, bob: User) -> None:
        responses = await asyncio.gather(*(alice.transfer(bob.account, "70.00") for _ in range(30)))

        made = sum(response.status_code == 201 for response in responses)
        assert made == 14  # 1000 // 70
        assert {response.status_code for response in responses} == {201, 400}
        assert await alice.balance() == Decimal(1000 - 14 * 70)
        assert await bob.balance() == Decimal(500 + 14 * 70)


class TestRequests:
    async def test_request_without_token_is_refused(self, alice: User) -> None:
        async with httpx.AsyncClient(base_url=alice.http.base_url) as anonymous:
            for path in (f"/accounts/{alice.account}", f"/accounts/{alice.account}/operations"):
                refused = await anonymous.get(path)
                assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHENTICATED")
                assert refused.headers["www-authenticate"] == 'Bearer realm="wallet"'

    async def test_token_with_wrong_signature_is_refused_over_rest_and_graphql(self, alice: User) -> None:
        headers = {"Authorization": f"Bearer {alice.token[:-4]}AAAA"}
        for path in (f"/accounts/{alice.account}", "/graphql"):
            refused = await alice.http.get(path, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == 'Bearer realm="wallet", error="invalid_token"'

    async def test_errors_of_bad_and_missing_tokens_have_the_same_shape_over_graphql(self, alice: User) -> None:
        query = {"query": "{ me { id } }"}
        async with httpx.AsyncClient(base_url=alice.http.base_url) as anonymous:
            missing = await anonymous.post("/graphql", json=query)
            bad = await anonymous.post("/graphql", json=query, headers={"Authorization": "Bearer forged"})
        for response in (missing, bad):
            (error,) = response.json()["errors"]
            assert error["extensions"] == {"code": "UNAUTHENTICATED", "requestId": response.headers["x-request-id"]}
            assert response.headers["content-type"] == "application/json; charset=utf-8"
        assert (missing.status_code, bad.status_code) == (200, 401)

    async def test_valid_request_id_is_returned_and_invalid_one_replaced(self, alice: User) -> None:
        response = await alice.http.get(f"/accounts/{alice.account}", headers={"X-Request-Id": "mine-42"})
        assert response.headers["x-request-id"] == "mine-42"
        odd = await alice.http.get(f"/accounts/{alice.account}", headers={"X-Request-Id": "a b"})
        assert odd.headers["x-request-id"] != "a b"

    async def test_too_large_body_is_refused(self, alice: User) -> None:
        path = f"/accounts/{alice.account}/transfers"
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}

        async def chunks() -> Any:
            for _ in range(100):
                yield b" " * 1024

        for content in (b" " * 70_000, chunks()):
            refused = await alice.http.post(path, content=content, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (413, "CONTENT_TOO_LARGE")

    async def test_body_that_is_not_json_is_refused(self, alice: User) -> None:
        path, headers = f"/accounts/{alice.account}/transfers", {"Idempotency-Key": "k"}
        broken = await alice.http.post(path, content="{", headers=headers | {"Content-Type": "application/json"})
        assert broken.status_code == 400
        text = await alice.http.post(path, content=json.dumps({}), headers=headers | {"Content-Type": "text/plain"})
        assert (text.status_code, text.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")

    async def test_unknown_route_is_a_problem_document(self, alice: User) -> None:
        lost = await alice.http.get("/nowhere")
        assert (lost.status_code, lost.headers["content-type"]) == (404, "application/problem+json")


class TestOperations:
    async def test_operation_has_the_direction_and_balance_of_each_account(self, alice: User, bob: User) -> None:
        made = (await alice.transfer(bob.account, "12.50")).json()

        async def arrived() -> bool:
            pages = [await user.operations() for user in (alice, bob)]
            return all(page["operations"] for page in pages)

        await until(arrived)
        (sent,), (received,) = [(await user.operations())["operations"] for user in (alice, bob)]
        assert (sent["id"], sent["direction"], sent["balanceAfter"]) == (made["id"], "OUT", "987.50")
        assert (received["id"], received["direction"], received["balanceAfter"]) == (made["id"], "IN", "512.50")
        assert (sent["counterpartyId"], received["counterpartyId"]) == (bob.account, alice.account)
        assert (sent["amount"], sent["currency"], sent["type"]) == ("12.50", "RUB", "TRANSFER")

    async def test_operations_page_in_both_directions(self, alice: User, bob: User) -> None:
        for number in range(1, 8):
            await alice.transfer(bob.account, f"{number}.00")

        async def all_there() -> bool:
            return len((await alice.operations())["operations"]) == 7

        await until(all_there)
        first = await alice.operations(limit=3)
        second = await alice.operations(limit=3, after=first["operations"][-1]["cursor"])
        back = await alice.operations(limit=3, before=second["operations"][0]["cursor"])
        assert [o["amount"] for o in first["operations"]] == ["7.00", "6.00", "5.00"]
        assert [o["amount"] for o in second["operations"]] == ["4.00", "3.00", "2.00"]
        assert back["operations"] == first["operations"]
        assert (first["hasOlder"], first["hasNewer"]) == (True, False)
        assert (second["hasOlder"], second["hasNewer"]) == (True, True)

    async def test_operations_are_filtered(self, alice: User, bob: User, new_user: NewUser) -> None:
        carol = await new_user()
        await alice.transfer(bob.account, "5.00")
        await alice.transfer(carol.account, "15.00")
        await bob.transfer(alice.account, "25.00")

        async def all_there() -> bool:
            return len((await alice.operations())["operations"]) == 3

        await until(all_there)

        async def amounts(**filters: Any) -> list[str]:
            return [operation["amount"] for operation in (await alice.operations(**filters))["operations"]]

        assert await amounts(direction="IN") == ["25.00"]
        assert await amounts(counterpartyId=carol.account) == ["15.00"]
        assert await amounts(minAmount="10", maxAmount="20.00") == ["15.00"]
        assert await amounts(type="TOP_UP") == []
        assert await amounts(type=["TOP_UP", "TRANSFER"]) == ["25.00", "15.00", "5.00"]
        middle = (await alice.operations())["operations"][1]["occurredAt"]
        assert await amounts(to=middle) == ["5.00"]
        assert await amounts(**{"from": middle}) == ["25.00", "15.00"]

    async def test_operations_of_another_users_account_are_not_found(self, alice: User, bob: User) -> None:
        refused = await alice.http.get(f"/accounts/{bob.account}/operations")
        assert (refused.status_code, refused.json()["code"]) == (404, "ACCOUNT_NOT_FOUND")

    @pytest.mark.parametrize(
        ("params", "field"),
        [
            ({"limit": 0}, "limit"),
            ({"limit": 1001}, "limit"),
            ({"after": "xyz"}, "after"),
            ({"after": "djE", "before": "djE"}, "before"),
            ({"minAmount": "-1"}, "minAmount"),
            ({"direction": "UP"}, "direction"),
            ({"type": "GIFT"}, "type"),
            ({"counterpartyId": "42"}, "counterpartyId"),
            ({"from": "yesterday"}, "from"),
            ({"type[]": "TOP_UP"}, "type"),
            ({"minamount": "500"}, "minAmount"),
            ({"limit": [1, 2]}, "limit"),
            ({"nonsense": "1"}, "query"),
        ],
    )
    async def test_invalid_parameters_are_named(self, alice: User, params: dict[str, Any], field: str) -> None:
        refused = await alice.http.get(f"/accounts/{alice.account}/operations", params=params)
        assert refused.status_code == 400
        assert [each["field"] for each in refused.json()["fields"]] == [field]


class TestPages:
    @pytest.mark.parametrize("path", ["/graphql", "/docs", "/problems", "/problems/insufficient-funds"])
    async def test_pages_load_nothing_from_other_hosts(self, alice: User, path: str) -> None:
        page = await alice.http.get(path, headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert "https://" not in page.text
        assert "http://" not in page.text
        sources = [part.split('"')[0] for part in page.text.replace("href=", "src=").split('src="')[1:]]
        assert sources
        for source in sources:
            assert (await alice.http.get(source)).status_code == 200, source

    async def test_openapi_document_is_served(self, alice: User) -> None:
        served = await alice.http.get("/openapi.yaml")
        assert "createTransfer" in served.text


class TestAccounts:
    async def test_account_has_the_decimals_of_its_currency(
        self,
        new_user: NewUser,
        open_account: OpenAccount,
    ) -> None:
        user = await new_user("1000", "JPY")
        other = await open_account(str(uuid.uuid4()), "0", "JPY")

        assert (await user.transfer(other, "10.5", currency="JPY")).status_code == 400
        made = await user.transfer(other, "10", currency="JPY")
        assert (made.status_code, made.json()["amount"]) == (201, "10")

    async def test_account_of_another_user_is_not_found(self, alice: User, bob: User) -> None:
        refused = await alice.http.get(f"/accounts/{bob.account}")
        assert (refused.status_code, refused.json()["code"]) == (404, "ACCOUNT_NOT_FOUND")
