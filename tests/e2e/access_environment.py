"""Everybody who asks at the front door and behind it, and how each call is asked: by REST, GraphQL and gRPC, and at the
admin ports.
"""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Self

import asyncpg
import grpc
import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from kit.auth.principal import Role
from kit.auth.tokens import TokenSigner
from protos.wallet.analytics.v1 import analytics_pb2
from protos.wallet.bank.v1 import bank_pb2
from protos.wallet.card.v1 import card_pb2
from protos.wallet.identity.v1 import identity_pb2
from provisioning.keys import ensure_secret
from stack.engines.postgres import Postgres
from stack.plan import AUDIENCE, ISSUER
from stack.system import System
from subgraphs.identity.service.domain.model import sealed
from tests.e2e.forged import forged
from tests.e2e.users import PASSWORD, known
from tests.openapi import REST
from tests.waiting import until
from wallet import cursor

GRAPHQL: Final = {
    "Query.me": "{ me { id username role } }",
    "Query.accounts": "{ accounts { edges { node { id balance { amount } } } } }",
    "Mutation.openAccount": """mutation($openInput: OpenAccountInput!) {
        openAccount(input: $openInput) { ... on OpenAccountSuccess { account { id } } ... on Error { code } } }""",
    "Query.account": "query($account: ID!) { account(id: $account) { id balance { amount } } }",
    "Query.transfer": """query($transfer: ID!) { transfer(id: $transfer) {
        id amount { amount } sender { id } recipient { id } } }""",
    "Query.topUp": "query($topUp: ID!) { topUp(id: $topUp) { id status account { id } } }",
    "Query._entities": """query($account: ID!) { _entities(representations: [{__typename: "Account", id: $account}]) {
        ... on Account { id balance { amount } operations(first: 9) { edges { node { counterparty { id } } } } } } }""",
    "Query._service": "{ _service { sdl } }",
    "Mutation.transferMoney": """mutation($transferInput: TransferMoneyInput!) {
        transferMoney(input: $transferInput) {
            ... on TransferMoneySuccess { transfer { id recipient { id } } balance { amount } }
            ... on Error { code } } }""",
    "Mutation.topUpAccount": """mutation($topUpInput: TopUpAccountInput!) {
        topUpAccount(input: $topUpInput) { ... on TopUpAccountSuccess { topUp { id } } ... on Error { code } } }""",
    "Subscription.balanceChanged": "subscription($account: ID!) { balanceChanged(accountId: $account) { cursor } }",
    "Subscription.operationAdded": """subscription($account: ID!, $after: String!) {
        operationAdded(accountId: $account, after: $after) { id balanceAfter { amount } counterparty { id } } }""",
    "Subscription.topUpUpdated": "subscription($topUp: ID!) { topUpUpdated(id: $topUp) { id status } }",
}

SERVICES: Final = {
    "BankService": (bank_pb2, "bank_grpc"),
    "CardService": (card_pb2, "card_grpc"),
    "AnalyticsService": (analytics_pb2, "analytics_grpc"),
    "IdentityService": (identity_pb2, "identity_grpc"),
}
ADMIN: Final = ("bank", "card", "analytics")
"""Those with routes for administrators."""
STATUSES: Final = {
    grpc.StatusCode.UNAUTHENTICATED: "401",
    grpc.StatusCode.PERMISSION_DENIED: "403",
    grpc.StatusCode.NOT_FOUND: "404",
}
CARD: Final = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}


@dataclass
class Scene:
    """What there is to be asked for, and everybody who asks.

    Attributes:
        forged: the owner's token, with something wrong about each.
        account: the owner's, with a `transfer` to the `payee`, and a `top_up`.
        secrets: what nobody but its owner may learn of the payee's account.
        seen: all that the owner was told, by call.
    """

    http: httpx.AsyncClient
    admin: dict[str, str]
    channels: dict[str, grpc.aio.Channel]
    sql: asyncpg.Connection
    identity_sql: asyncpg.Connection
    refresh_secret: bytes
    tokens: dict[str, str | None]
    forged: dict[str, str]
    owner: str
    account: str
    payee: str
    secrets: tuple[str, ...]
    transfer: str = ""
    top_up: str = ""
    seen: dict[str, str] = field(default_factory=dict)
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    @asynccontextmanager
    async def set(cls, system: System) -> AsyncIterator[Self]:
        """All of it, in a system that runs; the owner has made the transfer and the top-up."""
        keys = system.data / "keys"
        users = TokenSigner.from_file(ISSUER, keys / "development.pem", AUDIENCE)
        private = load_pem_private_key((keys / "development.pem").read_bytes(), password=None)
        assert isinstance(private, Ed25519PrivateKey)
        owner, payee, another = (str(uuid.uuid4()) for _ in range(3))
        tokens: dict[str, str | None] = {"anonymous": None, "nobody": users.sign(str(uuid.uuid4()), 600)}
        subjects = {"owner": owner, "another": another, "operator": str(uuid.uuid4()), "admin": str(uuid.uuid4())}
        for name, subject in subjects.items():
            role = Role(name) if name in set(Role) else Role.CUSTOMER
            tokens[name] = users.sign(subject, 600, [role])
        for name in ("card", "analytics"):
            tokens[name] = TokenSigner.from_file(name, keys / f"{name}.pem", AUDIENCE).sign(name, 600)
        async with AsyncExitStack() as stack:
            http = httpx.AsyncClient(base_url=system.url, timeout=10, trust_env=False)
            postgres = Postgres(system.data, system.ports.postgres)
            sql, identity_sql = [await asyncpg.connect(postgres.dsn(name)) for name in ("bank", "identity")]
            for connection in (sql, identity_sql):
                stack.push_async_callback(connection.close)
            for name, subject in subjects.items():
                await known(identity_sql, subject, f"{name}-{uuid.uuid4().hex}")
            channels = {
                name: await stack.enter_async_context(
                    grpc.aio.insecure_channel(f"127.0.0.1:{getattr(system.ports, port)}")
                )
                for name, (_, port) in SERVICES.items()
            }
            scene = cls(
                http=await stack.enter_async_context(http),
                admin={name: f"http://127.0.0.1:{getattr(system.ports, f'{name}_admin')}" for name in ADMIN},
                channels=channels,
                sql=sql,
                identity_sql=identity_sql,
                refresh_secret=ensure_secret(keys, "refresh").encode(),
                tokens=tokens,
                forged=forged(private, owner),
                owner=owner,
                account=await opened(sql, owner, "1000.00"),
                payee=await opened(sql, payee, "27182800.00"),
                secrets=(payee, "271828"),
            )
            await scene._arrange()
            yield scene

    async def ask(self, call: str, token: str | None) -> str:
        """What a caller with this token is answered, in short; or `401: …` and the like with what came instead."""
        service, _, method = call.partition(".")
        if call.partition(" ")[0] in self.admin:
            return await self._admin(call, token)
        if " " in call:
            return await self._rest(call, token)
        if service in SERVICES:
            return await self._rpc(service, method, token)
        return await self._graphql(call, token)

    async def _admin(self, call: str, token: str | None) -> str:
        name, method, path = call.split()
        url = f"{self.admin[name]}{path}".replace("{top_up_id}", self.top_up)
        answer = await self.http.request(method, url, headers=_headers(token), timeout=60)
        return "ok" if answer.is_success else str(answer.status_code)

    async def _rest(self, call: str, token: str | None) -> str:
        method, _, path = call.partition(" ")
        places = {"accountId": self.account, "transferId": self.transfer, "topUpId": self.top_up}
        for name, value in places.items():
            path = path.replace(f"{{{name}}}", value)
        answer = await self.http.request(
            method,
            path,
            headers=_headers(token) | {"Idempotency-Key": uuid.uuid4().hex},
            json=await self._body(call) if method == "POST" else None,
        )
        REST.check(answer)
        self._learn(call, token, answer.text)
        return "ok" if answer.is_success else str(answer.status_code)

    async def _body(self, call: str) -> dict[str, Any]:
        match call.rpartition("/")[2]:
            case "topup":
                return {"amount": "1.00", "card": CARD}
            case "accounts":
                return {}
            case "register":
                return new_credentials()
            case "login":
                return (await self._somebody())[0]
            case "refresh" | "logout":
                return {"refreshToken": (await self._somebody())[1]}
            case _:
                return {"recipientId": self.payee, "amount": "1.00"}

    async def _somebody(self) -> tuple[dict[str, str], str]:
        """What a new user signs in with, and a refresh token of theirs."""
        user, credentials = str(uuid.uuid4()), new_credentials()
        async with self.one_at_a_time:
            await known(self.identity_sql, user, credentials["username"])
            return credentials, await signed_in(self.identity_sql, user, self.refresh_secret)

    async def _graphql(self, call: str, token: str | None) -> str:
        root, _, name = call.partition(".")
        key = {"idempotencyKey": uuid.uuid4().hex, "amount": "1.00"}
        variables = {
            "account": self.account,
            "transfer": self.transfer,
            "topUp": self.top_up,
            "after": cursor.encode_version(0),
            "transferInput": key | {"senderId": self.account, "recipientId": self.payee},
            "topUpInput": key | {"accountId": self.account, "card": CARD},
            "openInput": {"idempotencyKey": uuid.uuid4().hex},
        }
        query = GRAPHQL[call]
        request = {"query": query, "variables": {each: variables[each] for each in re.findall(r"\$(\w+):", query)}}
        accept = {"Accept": "text/event-stream"} if root == "Subscription" else {}
        async with self.http.stream("POST", "/graphql", json=request, headers=_headers(token) | accept) as answer:
            if not answer.is_success:
                return str(answer.status_code)
            if root == "Subscription":
                text = await anext(line[6:] async for line in answer.aiter_lines() if line.startswith("data: {"))
            else:
                text = (await answer.aread()).decode()
        self._learn(call, token, text)
        return _graphql_outcome(json.loads(text), name)

    async def _rpc(self, service: str, method: str, token: str | None) -> str:
        descriptor = SERVICES[service][0].DESCRIPTOR.services_by_name[service].methods_by_name[method]
        request = ParseDict(await self._request(method), GetMessageClass(descriptor.input_type)())
        metadata = None if token is None else (("authorization", f"Bearer {token}"),)
        path = f"/{descriptor.containing_service.full_name}/{method}"
        coders = (type(request).SerializeToString, GetMessageClass(descriptor.output_type).FromString)
        channel = self.channels[service]
        try:
            if descriptor.server_streaming:
                stream = channel.unary_stream(path, *coders)(request, metadata=metadata)
                answer: Any = await stream.read()
                stream.cancel()
            else:
                answer = await channel.unary_unary(path, *coders)(request, metadata=metadata, timeout=60)
        except grpc.aio.AioRpcError as error:
            return STATUSES.get(error.code(), f"{error.code()}: {error.details()}")
        told = MessageToDict(answer)
        self._learn(f"{service}.{method}", token, json.dumps(told))
        codes = {result["error"]["code"] for result in told.get("results", ()) if "error" in result}
        return {(): "ok", (5,): "404"}.get(tuple(codes), str(codes))

    async def _request(self, method: str) -> dict[str, Any]:
        key, money = uuid.uuid4().hex, {"currencyCode": "RUB", "units": 1}
        account = {"accountId": self.account}
        sides = {"senderId": self.account, "recipientId": self.payee}
        transfer = {**sides, "amount": money, "idempotencyKey": key}
        requests: dict[str, dict[str, Any]] = {
            "TransferMoney": transfer,
            "BatchTransferMoney": {"transfers": [transfer]},
            "DepositMoney": account | {"amount": money, "idempotencyKey": key},
            "GetTransfer": {"id": self.transfer},
            "BatchGetAccounts": {"ids": [self.account]},
            "BatchGetTransfers": {"ids": [self.transfer]},
            "OpenAccount": {"ownerId": self.owner, "idempotencyKey": key},
            "ListAccounts": {"ownerId": self.owner},
            "ListAccountVersions": {"pageSize": 1},
            "ListEvents": account,
            "ProcessCardTopUp": account | {"amount": money, "card": CARD, "idempotencyKey": key},
            "GetUser": {"id": self.owner},
            "BatchGetUsers": {"ids": [self.owner]},
            "GetTopUp": {"id": self.top_up},
            "BatchGetTopUps": {"ids": [self.top_up]},
            "WatchTopUp": {"id": self.top_up},
            "WatchOperations": account | {"afterVersion": "0"},
            "GetStatistics": account
            | {"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z", "granularity": "GRANULARITY_MONTH"},
        }
        if method == "Register":
            return new_credentials()
        if method == "Authenticate":
            return (await self._somebody())[0]
        if method in {"Refresh", "Revoke"}:
            return {"refreshToken": (await self._somebody())[1]}
        if method == "CloseAccount":
            async with self.one_at_a_time:
                return {"accountId": await opened(self.sql, self.owner, "0")}
        return requests.get(method, account)

    def _learn(self, call: str, token: str | None, text: str) -> None:
        if text and token == self.tokens["owner"]:
            self.seen[call] = text

    async def _arrange(self) -> None:
        """A transfer, a top-up, and the history of both."""
        headers = _headers(self.tokens["owner"])
        account = f"/accounts/{self.account}"
        body = {"recipientId": self.payee, "amount": "1.00"}
        made = await self.http.post(f"{account}/transfers", json=body, headers=headers | {"Idempotency-Key": "first"})
        self.transfer = made.raise_for_status().json()["id"]
        paid_in = {"amount": "1.00", "card": CARD}
        begun = await self.http.post(f"{account}/topup", json=paid_in, headers=headers | {"Idempotency-Key": "first"})
        self.top_up = begun.raise_for_status().json()["id"]

        async def is_told() -> bool:
            operations = (await self.http.get(f"{account}/operations", headers=headers)).json()["operations"]
            top_up = (await self.http.get(f"{account}/topups/{self.top_up}", headers=headers)).json()
            return len(operations) == 2 and top_up["status"] == "COMPLETED"

        await until(is_told, within=30)


def new_credentials() -> dict[str, str]:
    return {"username": f"u{uuid.uuid4().hex}", "password": PASSWORD}


async def signed_in(sql: asyncpg.Connection, user: str, ensure_secret: bytes) -> str:
    """A refresh token of the user's."""
    sign_in, token = uuid.uuid4(), uuid.uuid4()
    statement = "INSERT INTO sign_ins (id, user_id, expires_at) VALUES ($1, $2, now() + interval '1 hour')"
    await sql.execute(statement, sign_in, user)
    await sql.execute("INSERT INTO refresh_tokens (id, sign_in) VALUES ($1, $2)", token, sign_in)
    return sealed(ensure_secret, token)


async def opened(sql: asyncpg.Connection, owner: str, balance: str) -> str:
    """A new account."""
    statement = "INSERT INTO accounts (owner_id, balance) VALUES ($1, $2) RETURNING id"
    return str(await sql.fetchval(statement, owner, Decimal(balance)))


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _graphql_outcome(result: dict[str, Any], name: str) -> str:
    codes = [error["extensions"]["code"] for error in result.get("errors", ())]
    value = (result.get("data") or {}).get(name)
    if isinstance(value, dict) and "code" in value:
        codes.append(value["code"])
    if not codes:
        return "404" if value is None else "ok"
    known = {"UNAUTHENTICATED": "401", "PERMISSION_DENIED": "403"}
    return next(known.get(code, "404" if code.endswith("_NOT_FOUND") else code) for code in codes)
