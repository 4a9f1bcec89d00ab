"""Figures of the graph alone: how well the cost of operations predicts their time, and the memory of documents."""

import re
from collections.abc import AsyncGenerator, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks import service_stubs
from benchmarks.accounts import account_id
from benchmarks.figure import BenchError, Figure, Options
from benchmarks.gateway_environment import OPERATIONS, TRANSFER, GatewayEnvironment
from benchmarks.http1_client import UNIQUE_KEY
from loadtests.console import print_progress

_COST_SPREAD: Final = "graphql.cost_spread"
_DOCUMENT_MEMORY: Final = "graphql.memory_1000_documents_mib"
_BARS: Final[Mapping[str, float]] = {_COST_SPREAD: 3.0, _DOCUMENT_MEMORY: 32.0}
FIGURES: Final[Collection[str]] = tuple(_BARS)

_DOCUMENTS: Final = 1_000
_TRANSFERS: Final = 10
_ACCOUNTS: Final = 20
_MICROSECONDS: Final = 1_000_000

_ACCOUNT: Final = "{ id balance { amount currency } status frozen createdAt owner { id } }"
_NO_REQUEST: Final = "{ __typename }"


async def measure(names: Collection[str], options: Options) -> AsyncGenerator[Figure, None]:
    """See `figure.FigureModule`."""
    async with GatewayEnvironment() as environment:
        if _COST_SPREAD in names:
            print_progress(f"{_COST_SPREAD}: {len(_corpus())} operations, one run each")
            yield await measure_cost_spread(environment, options)
        if _DOCUMENT_MEMORY in names:
            print_progress(f"{_DOCUMENT_MEMORY}: {_DOCUMENTS} documents")
            yield await measure_document_memory(environment)


def _corpus() -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Return operations of different kinds, each with its variables, by name."""
    ids = {f"i{number}": account_id(number) for number in range(_ACCOUNTS)}
    accounts = " ".join(f"a{number}: account(id: $i{number}) {_ACCOUNT}" for number in range(_ACCOUNTS))
    page = {"id": service_stubs.ACCOUNT, "first": service_stubs.PAGE_SIZE}
    order = {"senderId": account_id(1), "recipientId": account_id(2), "amount": "1.00", "idempotencyKey": UNIQUE_KEY}
    transfers = " ".join(
        f"t{number}: transferMoney(input: $input) {{ ... on TransferMoneySuccess {{ transfer {{ id }} }} }}"
        for number in range(_TRANSFERS)
    )
    ids_only = "account(id: $id) { operations(first: $first) { edges { node { id } } } }"
    return {
        "account": (f"query($id: ID!) {{ account(id: $id) {_ACCOUNT} }}", {"id": service_stubs.ACCOUNT}),
        "accounts": (f"query({', '.join(f'${name}: ID!' for name in ids)}) {{ {accounts} }}", ids),
        "page": (OPERATIONS, page),
        "page of ids": (
            f"query($id: ID!, $first: Int!) {{ {ids_only} }}",
            page,
        ),
        "page without items": (
            "query($id: ID!, $first: Int!) { account(id: $id) { operations(first: $first) { isComplete } } }",
            page,
        ),
        "transfer": (TRANSFER, {"input": order}),
        "transfers": (f"mutation($input: TransferMoneyInput!) {{ {transfers} }}", {"input": order}),
        "introspection": ("{ __schema { types { name fields { name type { name } args { name } } } } }", {}),
    }


async def measure_cost_spread(environment: GatewayEnvironment, options: Options) -> Figure:
    """Divide the processor time of a unit of cost in the most expensive operation by that in the cheapest.

    The time of a request without work is subtracted: the rate limit of requests pays for it. The time is the gateway's.
    """
    base = await _gateway_seconds(environment, "no work", _NO_REQUEST, {}, options)
    microseconds, details = {}, {}
    for name, (query, variables) in _corpus().items():
        seconds = await _gateway_seconds(environment, name, query, variables, options) - base
        cost = await _estimated_cost(environment, query, variables)
        microseconds[name] = _MICROSECONDS * seconds / cost
        details[name] = {
            "cost": cost,
            "microseconds": _MICROSECONDS * seconds,
            "microseconds_per_unit": microseconds[name],
        }
    return Figure(
        figure=_COST_SPREAD,
        value=max(microseconds.values()) / min(microseconds.values()),
        unit="ratio",
        bar=_BARS[_COST_SPREAD],
        better="lower",
        details={"base_microseconds": _MICROSECONDS * base, "operations": details},
    )


async def _gateway_seconds(
    environment: GatewayEnvironment, name: str, query: str, variables: Mapping[str, Any], options: Options
) -> float:
    """Return the gateway's processor time of one operation."""
    run = await environment.measure_side(environment.graphql_operations(name, query, variables), options)
    seconds: float = run.details["cpu_seconds"]["gateway"]
    return seconds / (run.rate * options.seconds)


async def _estimated_cost(environment: GatewayEnvironment, query: str, variables: Mapping[str, Any]) -> int:
    async with httpx.AsyncClient(base_url=f"http://{environment.gateway}", trust_env=False, timeout=30) as http:
        response = await http.post(
            "/graphql", json={"query": query, "variables": variables}, headers=environment.caller_headers()
        )
    if "errors" in response.json():
        raise BenchError(f"an operation failed: {response.text}")
    return int(response.headers["x-graphql-cost-estimated"])


async def measure_document_memory(environment: GatewayEnvironment) -> Figure:
    """Subtract the gateway's resident memory before a thousand documents from that with all of them cached.

    Each document has its own aliases and is executed twice, so its operation is compiled.
    """
    (pid,) = environment.pids()["gateway"]
    variables = {"id": service_stubs.ACCOUNT}
    async with httpx.AsyncClient(base_url=f"http://{environment.gateway}", trust_env=False, timeout=30) as http:

        async def execute(name: str) -> None:
            query = f"query($id: ID!) {{ {name}: account(id: $id) {_ACCOUNT} {name}b: account(id: $id) {_ACCOUNT} }}"
            response = await http.post(
                "/graphql", json={"query": query, "variables": variables}, headers=environment.caller_headers()
            )
            if "errors" in response.json():
                raise BenchError(f"an operation failed: {response.text}")

        for _ in range(_DOCUMENTS):  # the memory of the process itself grows with its first requests
            await execute("first")
        before = _resident_mib(pid)
        for number in range(2 * _DOCUMENTS):
            await execute("".join(chr(ord("a") + int(digit)) for digit in f"{number % _DOCUMENTS:03}"))
        after = _resident_mib(pid)
    return Figure(
        figure=_DOCUMENT_MEMORY,
        value=after - before,
        unit="MiB",
        bar=_BARS[_DOCUMENT_MEMORY],
        better="lower",
        details={"before_mib": before, "after_mib": after},
    )


def _resident_mib(pid: int) -> float:
    (kib,) = re.findall(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kib) / 1024
