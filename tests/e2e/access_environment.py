"""Callers and resources for the access tests, and the ways to make each call: REST, GraphQL, gRPC, admin routes."""

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
from subgraphs.identity.service.domain.refresh_tokens import encode_token
from tests.e2e.forged_tokens import forge_tokens
from tests.e2e.users import PASSWORD, insert_user
from tests.openapi import REST
from tests.waiting import until
from wallet import cursor

GRAPHQL: Final = {
    "Query.me": "{ me { id username role } }",
    "Query.accounts": "{ accounts { edges { node { id balance { amount } } } } }",
    "Mutation.openAccount": """mutation($openInput: OpenAccountInput!) {
        openAccount(input: $openInput) { ... on OpenAccountSuccess { account { id } } ... on Error { code } } }""",
    "Mutation.closeAccount": """mutation($closeInput: CloseAccountInput!) {
        closeAccount(input: $closeInput) { ... on ChangeAccountSuccess { account { id } } ... on Error { code } } }""",
    "Mutation.freezeAccount": """mutation($freezeInput: FreezeAccountInput!) {
        freezeAccount(input: $freezeInput) {
            ... on ChangeAccountSuccess { account { id } } ... on Error { code } } }""",
    "Mutation.setAccountFloor": """mutation($floorInput: SetAccountFloorInput!) {
        setAccountFloor(input: $floorInput) {
            ... on ChangeAccountSuccess { account { id } } ... on Error { code } } }""",
    "Mutation.thawAccount": """mutation($thawInput: ThawAccountInput!) {
        thawAccount(input: $thawInput) { ... on ChangeAccountSuccess { account { id } } ... on Error { code } } }""",
    "Query.account": "query($account: ID!) { account(id: $account) { id balance { amount } } }",
    "Query.transfer": """query($transfer: ID!) { transfer(id: $transfer) {
        id amount { amount } sender { id } recipient { id } } }""",
    "Query.topUp": "query($topUp: ID!) { topUp(id: $topUp) { id status account { id } } }",
    "Query.node": "query($account: ID!) { node(id: $account) { id ... on Account { balance { amount } } } }",
    "Query.nodes": "query($account: ID!) { nodes(ids: [$account]) { id ... on Account { balance { amount } } } }",
    "Query._entities": """query($account: ID!) { _entities(representations: [{__typename: "Account", id: $account}]) {
        ... on Account { id balance { amount } operations(first: 9) { edges { node { counterparty { id } } } } } } }""",
    "Query._service": "{ _service { sdl } }",
    "Mutation.transferMoney": """mutation($transferInput: TransferMoneyInput!) {
        transferMoney(input: $transferInput) {
            ... on TransferMoneySuccess { transfer { id recipient { id } } balance { amount } }
            ... on Error { code } } }""",
    "Mutation.transferMoneyBatch": """mutation($batch: [TransferMoneyInput!]!) {
        transferMoneyBatch(inputs: $batch) {
            result { ... on TransferMoneySuccess { transfer { id recipient { id } } } ... on Error { code } } } }""",
    "Mutation.topUpAccount": """mutation($topUpInput: TopUpAccountInput!) {
        topUpAccount(input: $topUpInput) { ... on TopUpAccountSuccess { topUp { id } } ... on Error { code } } }""",
    "Subscription.balanceChanged": "subscription($account: ID!) { balanceChanged(accountId: $account) { cursor } }",
    "Subscription.operationAdded": """subscription($account: ID!, $after: String!) {
        operationAdded(accountId: $account, after: $after) { id balanceAfter { amount } counterparty { id } } }""",
    "Subscription.topUpUpdated": "subscription($topUp: ID!) { topUpUpdated(id: $topUp) { id status } }",
}

CONTROLS: Final = ("/close", "/freeze", "/thaw", "/floor")
"""Ends of the paths that change the state of an account."""
CONTROL_MUTATIONS: Final = frozenset({"closeAccount", "freezeAccount", "thawAccount", "setAccountFloor"})

SERVICES: Final = {
    "BankService": (bank_pb2, "bank_grpc"),
    "CardService": (card_pb2, "card_grpc"),
    "AnalyticsService": (analytics_pb2, "analytics_grpc"),
    "IdentityService": (identity_pb2, "identity_grpc"),
}
ADMIN: Final = ("bank", "card", "analytics")
"""Services with admin routes."""
STATUSES: Final = {
    grpc.StatusCode.UNAUTHENTICATED: "401",
    grpc.StatusCode.PERMISSION_DENIED: "403",
    grpc.StatusCode.NOT_FOUND: "404",
}
CHANGE: Final = {"currentPassword": PASSWORD, "newPassword": PASSWORD[::-1]}
"""Password change. A repeat by the same user is not an error."""
CARD: Final = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}


@dataclass
class AccessEnvironment:
    """Callers with their tokens, and the resources that they request.

    Attributes:
        tokens: valid tokens by caller; None for the anonymous caller.
        forged: invalid variants of the owner's token, by kind.
        account: the owner's account, with a `transfer` to the `payee` and a `top_up`.
        secrets: data of the payee's account that only its owner may see.
        owner_responses: text of the response that the owner received, by call.
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
    owner_responses: dict[str, str] = field(default_factory=dict)
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    @asynccontextmanager
    async def create(cls, system: System) -> AsyncIterator[Self]:
        """Create users, accounts, a transfer and a top-up in a running system."""
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
        for name in ("card", "analytics", "gateway"):
            tokens[name] = TokenSigner.from_file(name, keys / f"{name}.pem", AUDIENCE).sign(name, 600)
        async with AsyncExitStack() as stack:
            http = httpx.AsyncClient(base_url=system.url, timeout=10, trust_env=False)
            postgres = Postgres(system.data, system.ports.postgres)
            sql, identity_sql = [await asyncpg.connect(postgres.dsn(name)) for name in ("bank", "identity")]
            for connection in (sql, identity_sql):
                stack.push_async_callback(connection.close)
            for name, subject in subjects.items():
                await insert_user(identity_sql, subject, f"{name}-{uuid.uuid4().hex}")
            channels = {
                name: await stack.enter_async_context(
                    grpc.aio.insecure_channel(f"127.0.0.1:{getattr(system.ports, port)}")
                )
                for name, (_, port) in SERVICES.items()
            }
            environment = cls(
                http=await stack.enter_async_context(http),
                admin={name: f"http://127.0.0.1:{getattr(system.ports, f'{name}_admin')}" for name in ADMIN},
                channels=channels,
                sql=sql,
                identity_sql=identity_sql,
                refresh_secret=ensure_secret(keys, "refresh").encode(),
                tokens=tokens,
                forged=forge_tokens(private, owner),
                owner=owner,
                account=await insert_account(sql, owner, "1000.00"),
                payee=await insert_account(sql, payee, "27182800.00"),
                secrets=(payee, "271828"),
            )
            await environment._create_history()
            yield environment

    async def call(self, call: str, token: str | None, scheme: str = "Bearer ") -> str:
        """Make a call with this token and return its result: `ok`, an HTTP status, or the unexpected error.

        Args:
            call: key of the access table.
            token: token of the caller; None for the anonymous caller.
            scheme: text before the token in `Authorization`.
        """
        service, _, method = call.partition(".")
        headers = {} if token is None else {"Authorization": f"{scheme}{token}"}
        if call.partition(" ")[0] in self.admin:
            return await self._call_admin(call, headers)
        is_owner = token == self.tokens["owner"] and scheme != ""  # a token without a scheme is refused
        if " " in call:
            return await self._call_rest(call, headers, is_owner=is_owner)
        if service in SERVICES:
            return await self._call_rpc(service, method, headers, is_owner=is_owner)
        return await self._call_graphql(call, headers, is_owner=is_owner)

    async def _call_admin(self, call: str, headers: dict[str, str]) -> str:
        name, method, path = call.split()
        url = f"{self.admin[name]}{path}".replace("{top_up_id}", self.top_up)
        url = url.replace("{kind}", "customer").replace("{attempt_id}", self.top_up)
        response = await self.http.request(method, url, headers=headers, timeout=60)
        return "ok" if response.is_success else str(response.status_code)

    async def _call_rest(self, call: str, headers: dict[str, str], *, is_owner: bool) -> str:
        method, _, path = call.partition(" ")
        account = await self._spare_account() if path.endswith(CONTROLS) else self.account
        path_values = {"accountId": account, "transferId": self.transfer, "topUpId": self.top_up}
        for name, value in path_values.items():
            path = path.replace(f"{{{name}}}", value)
        if method != "POST" and path.endswith("/transfers"):
            path += "?reference=access"
        if path.endswith("/balance"):
            path += "?version=1"
        response = await self.http.request(
            method,
            path,
            headers=headers | {"Idempotency-Key": uuid.uuid4().hex},
            json=await self._request_body(call) if method == "POST" else None,
        )
        REST.check(response)
        self._record_owner_response(call, response.text, is_owner=is_owner)
        if response.is_success and path == "/transfers/batch":
            (result,) = response.json()["results"]
            return str(result["problem"]["status"]) if "problem" in result else "ok"
        return "ok" if response.is_success else str(response.status_code)

    async def _request_body(self, call: str) -> dict[str, Any]:  # noqa: C901, PLR0911  one per body
        match call.rpartition("/")[2]:
            case "batch":
                transfer = {"senderId": self.account, "recipientId": self.payee, "amount": "1.00"}
                return {"transfers": [transfer | {"idempotencyKey": uuid.uuid4().hex}]}
            case "topup":
                return {"amount": "1.00", "card": CARD}
            case "accounts" | "close":
                return {}
            case "freeze":
                return {"frozen": "ALL", "reason": "access"}
            case "thaw":
                return {"reason": "access"}
            case "floor":
                return {"floor": "-1.00", "reason": "access"}
            case "password":
                return CHANGE
            case "register":
                return new_credentials()
            case "login":
                return (await self._new_user())[0]
            case "refresh" | "logout":
                return {"refreshToken": (await self._new_user())[1]}
            case _:
                return {"recipientId": self.payee, "amount": "1.00"}

    async def _spare_account(self) -> str:
        """Open an empty account of the owner, for calls that close or freeze it."""
        async with self.one_at_a_time:
            return await insert_account(self.sql, self.owner, "0")

    async def _new_user(self) -> tuple[dict[str, str], str]:
        """Create a user; return the credentials and a refresh token."""
        user, credentials = str(uuid.uuid4()), new_credentials()
        async with self.one_at_a_time:
            await insert_user(self.identity_sql, user, credentials["username"])
            return credentials, await insert_session(self.identity_sql, user, self.refresh_secret)

    async def _call_graphql(self, call: str, headers: dict[str, str], *, is_owner: bool) -> str:
        root, _, name = call.partition(".")
        key = {"idempotencyKey": uuid.uuid4().hex, "amount": "1.00"}
        spare = await self._spare_account() if name in CONTROL_MUTATIONS else ""
        variables = {
            "account": self.account,
            "transfer": self.transfer,
            "topUp": self.top_up,
            "after": cursor.encode_version(0),
            "transferInput": key | {"senderId": self.account, "recipientId": self.payee},
            "batch": [key | {"senderId": self.account, "recipientId": self.payee}],
            "topUpInput": key | {"accountId": self.account, "card": CARD},
            "openInput": {"idempotencyKey": uuid.uuid4().hex},
            "closeInput": {"accountId": spare},
            "freezeInput": {"accountId": spare, "frozen": "ALL", "reason": "access"},
            "thawInput": {"accountId": spare, "reason": "access"},
            "floorInput": {"accountId": spare, "floor": "-1.00", "reason": "access"},
        }
        query = GRAPHQL[call]
        request = {"query": query, "variables": {each: variables[each] for each in re.findall(r"\$(\w+):", query)}}
        accept = {"Accept": "text/event-stream"} if root == "Subscription" else {}
        async with self.http.stream("POST", "/graphql", json=request, headers=headers | accept) as response:
            if not response.is_success:
                return str(response.status_code)
            if root == "Subscription":
                text = await anext(line[6:] async for line in response.aiter_lines() if line.startswith("data: {"))
            else:
                text = (await response.aread()).decode()
        self._record_owner_response(call, text, is_owner=is_owner)
        return _graphql_outcome(json.loads(text), name)

    async def _call_rpc(self, service: str, method: str, headers: dict[str, str], *, is_owner: bool) -> str:
        descriptor = SERVICES[service][0].DESCRIPTOR.services_by_name[service].methods_by_name[method]
        request = ParseDict(await self._rpc_request(method), GetMessageClass(descriptor.input_type)())
        metadata = tuple((name.lower(), value) for name, value in headers.items())
        path = f"/{descriptor.containing_service.full_name}/{method}"
        coders = (type(request).SerializeToString, GetMessageClass(descriptor.output_type).FromString)
        channel = self.channels[service]
        try:
            if descriptor.server_streaming:
                stream = channel.unary_stream(path, *coders)(request, metadata=metadata)
                response: Any = await stream.read()
                stream.cancel()
            else:
                response = await channel.unary_unary(path, *coders)(request, metadata=metadata, timeout=60)
        except grpc.aio.AioRpcError as error:
            return STATUSES.get(error.code(), f"{error.code()}: {error.details()}")
        message = MessageToDict(response)
        self._record_owner_response(f"{service}.{method}", json.dumps(message), is_owner=is_owner)
        codes = {result["error"]["code"] for result in message.get("results", ()) if "error" in result}
        return {(): "ok", (5,): "404"}.get(tuple(codes), str(codes))

    async def _rpc_request(self, method: str) -> dict[str, Any]:
        key, money = uuid.uuid4().hex, {"currencyCode": "RUB", "units": 1}
        account = {"accountId": self.account}
        sides = {"senderId": self.account, "recipientId": self.payee}
        transfer = {**sides, "amount": money, "idempotencyKey": key}
        requests: dict[str, dict[str, Any]] = {
            "TransferMoney": transfer,
            "BatchTransferMoney": {"transfers": [transfer]},
            "ForwardTransfers": {
                "items": [{"transfer": transfer, "token": self.tokens["owner"], "timeoutMs": 10_000}],
            },
            "DepositMoney": account | {"amount": money, "idempotencyKey": key},
            "GetTransfer": {"id": self.transfer},
            "BatchGetAccounts": {"ids": [self.account]},
            "BatchGetBalancesAt": {"requests": [account | {"version": "1"}]},
            "BatchGetTransfers": {"ids": [self.transfer]},
            "ListTransfers": account | {"reference": "access"},
            "OpenAccount": {"ownerId": self.owner, "idempotencyKey": key},
            "ListAccounts": {"ownerId": self.owner},
            "ListAccountVersions": {"pageSize": 1},
            "ListEvents": account,
            "VerifyHistory": {"postings": []},
            "ProcessCardTopUp": account | {"amount": money, "card": CARD, "idempotencyKey": key},
            "ChangePassword": CHANGE,
            "GetUser": {"id": self.owner},
            "BatchGetUsers": {"ids": [self.owner]},
            "GetTopUp": {"id": self.top_up},
            "BatchGetTopUps": {"ids": [self.top_up]},
            "BatchListTopUps": {"requests": [account]},
            "BatchGetOperations": {"requests": [account]},
            "WatchTopUp": {"id": self.top_up},
            "WatchOperations": account | {"afterVersion": "0"},
            "GetStatistics": account
            | {"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z", "granularity": "GRANULARITY_MONTH"},
        }
        if method == "Register":
            return new_credentials()
        if method == "Authenticate":
            return (await self._new_user())[0]
        if method in {"Refresh", "Revoke"}:
            return {"refreshToken": (await self._new_user())[1]}
        if method == "SetAccountFloor":
            floor = {"currencyCode": "RUB", "units": "-1"}
            return {"accountId": await self._spare_account(), "floor": floor, "reason": "access"}
        if method in {"CloseAccount", "FreezeAccount", "ThawAccount"}:
            change = {"reason": "access"} if method != "CloseAccount" else {}
            frozen = {"frozen": "ACCOUNT_FREEZE_ALL"} if method == "FreezeAccount" else {}
            return {"accountId": await self._spare_account(), **change, **frozen}
        return requests.get(method, account)

    def _record_owner_response(self, call: str, text: str, *, is_owner: bool) -> None:
        if text and is_owner:
            self.owner_responses[call] = text

    async def _create_history(self) -> None:
        """Make a transfer and a top-up, and wait for the history of both."""
        headers = {"Authorization": f"Bearer {self.tokens['owner']}"}
        account = f"/accounts/{self.account}"
        body = {"recipientId": self.payee, "amount": "1.00"}
        transfer = await self.http.post(
            f"{account}/transfers", json=body, headers=headers | {"Idempotency-Key": "first"}
        )
        self.transfer = transfer.raise_for_status().json()["id"]
        top_up_body = {"amount": "1.00", "card": CARD}
        top_up = await self.http.post(
            f"{account}/topup", json=top_up_body, headers=headers | {"Idempotency-Key": "first"}
        )
        self.top_up = top_up.raise_for_status().json()["id"]

        async def is_complete() -> bool:
            operations = (await self.http.get(f"{account}/operations", headers=headers)).json()["operations"]
            current = (await self.http.get(f"{account}/topups/{self.top_up}", headers=headers)).json()
            return len(operations) == 2 and current["status"] == "COMPLETED"

        await until(is_complete, within=30)


def new_credentials() -> dict[str, str]:
    return {"username": f"u{uuid.uuid4().hex}", "password": PASSWORD}


async def insert_session(sql: asyncpg.Connection, user: str, refresh_secret: bytes) -> str:
    """Insert a session of the user and return its refresh token."""
    sign_in, token = uuid.uuid4(), uuid.uuid4()
    statement = "INSERT INTO sign_ins (id, user_id, expires_at) VALUES ($1, $2, now() + interval '1 hour')"
    await sql.execute(statement, sign_in, user)
    await sql.execute("INSERT INTO refresh_tokens (id, sign_in) VALUES ($1, $2)", token, sign_in)
    return encode_token(refresh_secret, token)


async def insert_account(sql: asyncpg.Connection, owner: str, balance: str) -> str:
    """Insert an account and return its id."""
    statement = "INSERT INTO accounts (owner_id, balance) VALUES ($1, $2) RETURNING id"
    return str(await sql.fetchval(statement, owner, Decimal(balance)))


def _graphql_outcome(result: dict[str, Any], name: str) -> str:
    codes = [error["extensions"]["code"] for error in result.get("errors", ())]
    value = (result.get("data") or {}).get(name)
    if name == "transferMoneyBatch" and value:
        value = value[0]["result"]
    if isinstance(value, dict) and "code" in value:
        codes.append(value["code"])
    if not codes:
        return "404" if value in (None, [None]) else "ok"
    statuses = {"UNAUTHENTICATED": "401", "PERMISSION_DENIED": "403"}
    return next(statuses.get(code, "404" if code.endswith("_NOT_FOUND") else code) for code in codes)
