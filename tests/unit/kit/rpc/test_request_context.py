import asyncio
import time
from contextvars import Context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.auth.principal import Principal
from kit.rpc import request_context
from kit.rpc.request_context import RequestContext, current_request
from kit.telemetry.tracing import TraceContext
from wallet.errors import Unauthenticated

ALICE = Principal("users", "alice", is_service=False, expires_at=0)


class TestRequestId:
    @given(st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True))
    def test_keeps_the_callers_own(self, proposed: str) -> None:
        assert request_context.choose_request_id(proposed, TraceContext.new()) == proposed

    @pytest.mark.parametrize("proposed", [None, "", "a b", "a\n", "a\r\nx: y", "x" * 65, "é", '"', "a/b", "{}"])
    def test_is_the_traces_where_it_is_not_safe_to_log(self, proposed: str | None) -> None:
        trace = TraceContext.new()
        assert request_context.choose_request_id(proposed, trace) == trace.trace_id
        assert request_context.choose_request_id(trace.trace_id, TraceContext.new()) == trace.trace_id


class TestRemaining:
    def test_a_call_without_a_deadline_has_the_cap(self) -> None:
        assert RequestContext("r").remaining(5) == 5

    def test_the_nearer_of_deadline_and_cap_counts(self) -> None:
        assert RequestContext("r", deadline=time.monotonic() + 100).remaining(5) == 5
        assert 0 < RequestContext("r", deadline=time.monotonic() + 2).remaining(5) <= 2

    def test_nothing_is_left_after_the_deadline(self) -> None:
        assert RequestContext("r", deadline=time.monotonic() - 1).remaining(5) == 0


class TestPrincipal:
    def test_is_the_caller_of_the_current_call(self) -> None:
        reset = current_request.set(RequestContext("r", ALICE))
        assert request_context.current_principal() is ALICE
        current_request.reset(reset)

    @pytest.mark.parametrize("anonymous", [None, RequestContext("r")])
    def test_without_one_the_call_is_refused(self, anonymous: RequestContext | None) -> None:
        def ask() -> None:
            if anonymous is not None:
                current_request.set(anonymous)
            request_context.current_principal()

        with pytest.raises(Unauthenticated):
            Context().run(ask)


class TestOwn:
    async def test_a_services_own_call_carries_its_own_token_and_no_caller(self) -> None:
        with request_context.as_service(lambda: "a token"):
            own = current_request.get()
            inherited = await asyncio.create_task(_current())
        assert (own.token, own.principal, own.deadline) == ("a token", None, None)
        assert inherited is own

    def test_goes_on_by_the_id_and_in_the_trace_of_the_call_that_it_is_made_for(self) -> None:
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

    def test_is_known_by_a_trace_of_its_own_where_there_is_no_other_call_and_ends_with_the_block(self) -> None:
        def ask() -> None:
            with request_context.as_service(lambda: "a token"):
                assert current_request.get().request_id == current_request.get().trace.trace_id
            assert current_request.get(None) is None

        Context().run(ask)


async def _current() -> RequestContext:
    return current_request.get()
