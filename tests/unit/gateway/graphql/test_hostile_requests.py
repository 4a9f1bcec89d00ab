"""For any body of up to 64 KiB, the gateway's work and the response are bounded, and no error quotes the request."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from strawberry.types import ExecutionContext

from gateway.graphql.execution.context import Context
from gateway.graphql.execution.runner import OperationRunner
from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.execution.validation import Validator
from gateway.graphql.protection.access import guard_root_fields
from gateway.graphql.protection.trusted_documents import TrustedDocuments
from gateway.graphql.transport.http import GraphQLOverHTTP
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from gateway.http.work_limits import WorkLimits
from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from kit.runtime.fair_limit import FairLimit
from subgraphs.bank import client as bank
from tests.unit.gateway.graphql.full_services import FullServices
from tests.unit.gateway.graphql.hostile import BODY_BYTES, MARK, NUMBER, bodies
from tests.unit.gateway.graphql.policies import InlineExecutor, new_policy
from wallet.errors import Unavailable

MAX_CALLS: Final = 330_000
"""Maximum number of calls of Python and C functions for one request, a tenth above the worst known request.

100 calls take about 15 µs on an idle machine.
"""

MAX_ANONYMOUS_CALLS: Final = 101_000

MAX_RESPONSE_BYTES: Final = 64 * 1024


class UnavailableServices:
    """Clients of services that are all unavailable, except that the caller has nine accounts."""

    async def list_accounts(
        self, owner_id: str, *, limit: int, after: UUID | None, before: UUID | None
    ) -> bank.AccountPage:
        services = FullServices(lambda most: min(most, 9))
        return await services.list_accounts(owner_id, limit=limit, after=after, before=before)

    def __getattr__(self, name: str) -> Any:
        async def unavailable(*_: Any, **__: Any) -> Any:
            raise Unavailable("the bank")

        return unavailable


CUSTOMER: Final = Principal("issuer", "alice", is_service=False, expires_at=2.0**33, roles=frozenset({Role.CUSTOMER}))


@dataclass
class Outcome:
    """Work and response of one request.

    Attributes:
        calls: number of function calls.
        response: body of the response.
    """

    calls: int
    response: bytes

    def errors_without_paths(self) -> str:
        """Return all errors of the response as a text, without their paths, which contain the caller's aliases."""
        response = orjson.loads(self.response)
        results = response if isinstance(response, list) else [response]
        errors = [error for result in results for error in result.get("errors", ())]
        return str([error | {"path": None} for error in errors])


VALIDATOR: Final = Validator(introspection=False, suggestions=True)


def new_app() -> GraphQLOverHTTP:
    """Return the endpoint of the merged graph as in production, but with suggestions, because these take time.

    Each operation has an empty cache of documents, so that a repeated request takes as long as the first one.
    """

    def new_runner(execution_context: ExecutionContext) -> OperationRunner:
        return OperationRunner(new_policy(validator=VALIDATOR, executor=InlineExecutor()), execution_context)

    schema = build_merged_schema(new_runner)
    guard_root_fields(schema.core_schema)
    services: Any = UnavailableServices()
    rate_limiter = RateLimiter(RateLimitOptions(is_on=False))
    return GraphQLOverHTTP(
        schema,
        lambda: Context(services, services, services, services, rate_limiter),
        TrustedDocuments(None),
        asyncio.Event(),
        WorkLimits(bodies=FairLimit(2**30), costs=FairLimit(2**30)),  # each request has its own event loop
        batch_limit=10,
        graphiql=False,
    )


def send(body: bytes, caller: Principal | None) -> Outcome:
    """Send a request with this body, and count the function calls."""
    sent: list[dict[str, Any]] = []
    calls: Counter[str] = Counter()

    def count(_frame: object, event: str, _argument: object) -> None:
        calls[event] += 1

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def collect(message: Any) -> None:
        sent.append(message)

    async def respond() -> None:
        request_context.current_request.set(request_context.RequestContext("the-request", principal=caller))
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/graphql", "query_string": b"", "headers": headers}
        await APP(scope, receive, collect)

    with asyncio.Runner() as runner:
        runner.get_loop()
        sys.setprofile(count)
        try:
            runner.run(respond())
        finally:
            sys.setprofile(None)
    return Outcome(calls["call"] + calls["c_call"], b"".join(message.get("body", b"") for message in sent))


APP: Final = new_app()


def unknown_fields_of_a_literal() -> bytes:
    literal = " ".join(f"x{number}:{NUMBER}" for number in range(200))
    query = f"query{{account(id:1){{operations(filter:{{{literal}}}){{pageInfo{{endCursor}}}}}}}}"
    return orjson.dumps([{"query": query}] * 10)


def named_operations(count: int, name: str) -> bytes:
    """Return a batch of ten different documents. Each request selects one of the document's operations by `name`."""
    text = " ".join(f"query q{number}{{__typename}}" for number in range(count))
    return orjson.dumps([{"query": text + " " * number, "operationName": name} for number in range(10)])


def in_many_fields(argument: str, type_: str) -> str:
    """Return an operation that reads 24 pages of each of nine accounts, all with the same argument."""
    pages = " ".join(f"a{number}: operations(first: 1, {argument}) {{ isComplete }}" for number in range(24))
    return f"query($a: {type_}) {{ accounts(first: 9) {{ edges {{ node {{ {pages} }} }} }} }}"


def chained_fragments(selections: Sequence[str], spread: str = "{...f0}", type_: str = "Query") -> str:
    """Return an operation and numbered fragments with these selections; `{next}` is the spread of the next fragment."""
    fragments = (
        f"fragment f{number} on {type_}{{{text.replace('{next}', f'...f{number + 1}')}}}"
        for number, text in enumerate(selections)
    )
    return " ".join((spread, *fragments))


def cycle_of_fragments() -> str:
    """Return an operation and 25 fragments: 24 spread all 25, and the first one spreads two of them below a field."""
    every = " ".join(f"...f{number}" for number in range(25))
    return chained_fragments(["m:me{...f0 ...f1}", *[every] * 24])


def batch(text: str) -> bytes:
    """Return ten requests with different documents."""
    return orjson.dumps([{"query": text + " " * number} for number in range(10)])


OPERATIONS: Final = "{ operations(filter: { types: $t }) { __typename } }"
EXAMPLES: Final = {
    "unknown fields of a literal, ten times": unknown_fields_of_a_literal(),
    "ten operations, one executed": named_operations(10, "q3"),
    "fifty operations, one executed": named_operations(50, "q3"),
    "fragments that double": batch(chained_fragments(["{next} {next}"] * 48 + ["__typename"])),
    "fragments that double, without a field": batch(chained_fragments(["{next} {next}"] * 48)),
    "fragments that spread all later ones": orjson.dumps(
        {"query": chained_fragments([" ".join(f"...f{n}" for n in range(m, 41)) for m in range(1, 41)])}
    ),
    "a chain of fragments in each of ten documents": batch(
        chained_fragments(["__typename {next}"] * 23 + ["__typename"])
    ),
    "a cycle of fragments": batch(cycle_of_fragments()),
    "nested inline fragments of many fragments": batch(
        chained_fragments(["...{" * 10 + "{next}" + "}" * 10] * 48 + ["__typename"])
    ),
    "a nested inline fragment that is spread 400 times": orjson.dumps(
        {"query": chained_fragments(["...{" * 100 + "id" + "}" * 100], "{me{" + "...f0 " * 400 + "}}", "User")}
    ),
    "lists that are selected ten times": batch(
        "{me{" + "accounts{edges{node{owner{accounts{edges{node{id}}}}}}} " * 10 + "}}"
    ),
    "lists that are selected 24 times": batch("{me{" + "accounts{edges{node{id}}} " * 24 + "}}"),
    "fragments that all select a list": batch(
        "{me{"
        + " ".join(f"...f{number}" for number in range(16))
        + "}}"
        + chained_fragments(["accounts{edges{node{id}}}"] * 16, "", "User")
    ),
    "unknown types": batch("{me{" + " ".join(f"...on Zz{number}{{id}}" for number in range(6)) + "}}"),
    "fifty operations, an unknown name": named_operations(50, "unknown"),
    "newlines before each error": orjson.dumps(
        {"query": "\n" * 1_900 + "{" + " ".join(f"f{n}" for n in range(20)) + "}"}
    ),
    "objects in JSON": b"[" + b",".join([b"{}"] * 21_000) + b"]",
    "arrays in JSON": b"[" * 30_000 + b"]" * 30_000,
    "a long integer in JSON": b'{"query":' + b"1" * 60_000 + b"}",
    "many long integers in JSON": b"[" + b",".join([b"1" * 4_000] * 15) + b"]",
    "a long name": orjson.dumps({"query": "{" + "a" * 60_000 + "}"}),
    "unknown fields of a variable": orjson.dumps(
        {
            "query": "query($f: OperationFilter) { account(id: 1) { operations(filter: $f) { __typename } } }",
            "variables": {"f": {f"x{number}": number for number in range(4_500)}},
        }
    ),
    "long lists of variables, ten times": orjson.dumps(
        [
            {
                "query": f"query($t: [OperationType!]) {{ account(id: 1) {OPERATIONS} }}",
                "variables": {"t": ["TOP_UP"] * 700},
            }
        ]
        * 10
    ),
    "a list of types in 216 fields": orjson.dumps(
        {"query": in_many_fields("filter: { types: $a }", "[OperationType!]"), "variables": {"a": ["TOP_UP"] * 6_500}}
    ),
    "a long amount in 216 fields": orjson.dumps(
        {"query": in_many_fields("filter: { minAmount: $a }", "String"), "variables": {"a": "9" * 60_000}}
    ),
    "a long cursor in 216 fields": orjson.dumps(
        {"query": in_many_fields("after: $a", "String"), "variables": {"a": "Zm9v" * 15_000}}
    ),
    "a long default in 216 fields": orjson.dumps({"query": in_many_fields("after: $a", f'String = "{MARK * 15_000}"')}),
    "216 pages": orjson.dumps({"query": in_many_fields("after: null", "").replace("($a: )", "")}),
    "a long variable": orjson.dumps(
        {"query": "query($a: Int!) { __typename @skip(if: $a) }", "variables": {"a": MARK * 9_000}}
    ),
}


class TestHostileRequests:
    @pytest.mark.parametrize("caller", [CUSTOMER, None], ids=["customer", "anonymous"])
    @pytest.mark.parametrize("body", EXAMPLES.values(), ids=EXAMPLES)
    def test_known_attack_stays_within_the_bounds(self, body: bytes, caller: Principal | None) -> None:
        assert_bounded(body, caller)

    @pytest.mark.slow
    @given(body=bodies())
    @settings(max_examples=50, suppress_health_check=list(HealthCheck))
    def test_generated_attack_stays_within_the_bounds(self, body: bytes) -> None:
        for caller in (CUSTOMER, None):
            assert_bounded(body, caller)


def assert_bounded(body: bytes, caller: Principal | None) -> None:
    assert len(body) <= BODY_BYTES
    outcome = send(body, caller)
    assert outcome.calls <= (MAX_ANONYMOUS_CALLS if caller is None else MAX_CALLS)
    assert len(outcome.response) <= MAX_RESPONSE_BYTES
    assert b'"INTERNAL"' not in outcome.response
    assert MARK not in outcome.errors_without_paths()
    assert NUMBER[:8] not in outcome.errors_without_paths()
