"""Schemathesis hooks for the GraphQL schema, loaded with SCHEMATHESIS_HOOKS."""

import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes

schemathesis.graphql.scalar("Secret", st.sampled_from(["4242424242424242", "123", "", "x"]).map(nodes.String))
schemathesis.graphql.scalar("DateTime", st.datetimes().map(lambda at: nodes.String(at.isoformat() + "Z")))


@schemathesis.check
def no_internal_error(ctx: object, response: schemathesis.Response, case: object) -> None:
    """Fail on HTTP server errors, on GraphQL errors with the code INTERNAL, and on GraphQL errors without a code."""
    assert response.status_code < 500
    if not response.content:
        return
    codes = [error.get("extensions", {}).get("code") for error in response.json().get("errors", ())]
    assert "INTERNAL" not in codes
    assert None not in codes
