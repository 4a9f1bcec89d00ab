"""Request context: ids, deadlines, principals and service calls."""

import asyncio
import time
from contextvars import Context

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kit.auth.principal import Principal
from kit.rpc import request_context
from kit.rpc.request_context import RequestContext, current_request
from kit.telemetry.card_numbers import has_card_number
from kit.telemetry.tracing import TraceContext
from tests.clock import ManualClock
from wallet.errors import Unauthenticated

CARDS = (
    "4242424242424242",
    "4242424242424242INJ23",
    "order:4242-4242-4242-4242",
    "card-4242-4242-4242-4242",
    "4242-4242-4242-4242-123",
    "4242.4242.4242.4242",
    "4242_4242_4242_4242",
    "4242:4242-4242.4242",
)
ALICE = Principal("users", "alice", is_service=False, expires_at=0)


class TestRequestId:
    @given(st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True))
    def test_safe_request_id_of_the_caller_is_kept(self, proposed: str) -> None:
        assume(not has_card_number(proposed))
        assert request_context.choose_request_id(proposed, TraceContext.new()) == proposed

    @pytest.mark.parametrize("proposed", [None, "", "a b", "a\n", "a\r\nx: y", "x" * 65, "é", '"', "a/b", "{}", *CARDS])
    def test_unsafe_request_id_becomes_the_trace_id(self, proposed: str | None) -> None:
        trace = TraceContext.new()
        assert request_context.choose_request_id(proposed, trace) == trace.trace_id
        assert request_context.choose_request_id(trace.trace_id, TraceContext.new()) == trace.trace_id


class TestRemaining:
    def test_request_without_a_deadline_has_the_cap(self) -> None:
        assert RequestContext("r").remaining(5) == 5

    def test_smaller_of_deadline_and_cap_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = ManualClock()
        monkeypatch.setattr(request_context, "time", clock)
        assert RequestContext("r", deadline=clock.monotonic() + 100).remaining(5) == 5
        assert RequestContext("r", deadline=clock.monotonic() + 2).remaining(5) == 2

    def test_remaining_time_is_zero_after_the_deadline(self) -> None:
        assert RequestContext("r", deadline=time.monotonic() - 1).remaining(5) == 0


class TestCurrentPrincipal:
    def test_principal_is_the_caller_of_the_current_request(self) -> None:
        reset = current_request.set(RequestContext("r", ALICE))
        assert request_context.current_principal() is ALICE
        current_request.reset(reset)

    @pytest.mark.parametrize("anonymous", [None, RequestContext("r")])
    def test_anonymous_request_is_unauthenticated(self, anonymous: RequestContext | None) -> None:
        def read_principal() -> None:
            if anonymous is not None:
                current_request.set(anonymous)
            request_context.current_principal()

        with pytest.raises(Unauthenticated):
            Context().run(read_principal)


class TestAsService:
    async def test_service_call_has_the_services_token_and_no_caller(self) -> None:
        with request_context.as_service(lambda: "a token"):
            own = current_request.get()
            inherited = await asyncio.create_task(_current())
        assert (own.token, own.principal, own.deadline) == ("a token", None, None)
        assert inherited is own

    def test_service_call_keeps_request_id_and_trace(self) -> None:
        reset = current_request.set(RequestContext("r", ALICE, "alice's token"))
        with request_context.as_service(lambda: "a token"):
            own = current_request.get()
        assert (own.request_id, own.trace, own.principal, own.token) == (
            "r",
            current_request.get().trace,
            None,
            "a token",
        )
        current_request.reset(reset)

    def test_service_call_without_a_request_starts_a_trace(self) -> None:
        def check() -> None:
            with request_context.as_service(lambda: "a token"):
                assert current_request.get().request_id == current_request.get().trace.trace_id
            assert current_request.get(None) is None

        Context().run(check)


async def _current() -> RequestContext:
    return current_request.get()
