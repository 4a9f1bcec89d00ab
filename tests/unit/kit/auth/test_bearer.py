"""`Authorization` values: schemes, tokens without a scheme, several values, and the challenge of a refusal."""

import pytest

from kit.auth.bearer import AUTHORIZATION, challenge, parse_bearer, parse_bearer_lines
from wallet.errors import (
    InvalidCredentials,
    InvalidInput,
    PermissionDenied,
    TokenTooLong,
    Unauthenticated,
    Unavailable,
    WalletError,
)

TOKEN = "aa.bb.cc"


class TestParsing:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
    @pytest.mark.parametrize("allow_bare", [True, False])
    def test_scheme_is_matched_without_regard_to_case(self, scheme: str, *, allow_bare: bool) -> None:
        assert parse_bearer(f"{scheme} {TOKEN}", allow_bare=allow_bare) == TOKEN
        assert parse_bearer(f"{scheme}   {TOKEN}  ", allow_bare=allow_bare) == TOKEN

    @pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "bearer  "])
    @pytest.mark.parametrize("allow_bare", [True, False])
    def test_value_without_a_token_is_parsed_as_empty(self, value: str, *, allow_bare: bool) -> None:
        assert parse_bearer(value, allow_bare=allow_bare) == ""

    @pytest.mark.parametrize("value", [f"Basic {TOKEN}", f"Token token={TOKEN}", f"Bearer{TOKEN} x", f" {TOKEN}"])
    @pytest.mark.parametrize("allow_bare", [True, False])
    def test_another_scheme_is_refused(self, value: str, *, allow_bare: bool) -> None:
        with pytest.raises(Unauthenticated, match="send `Authorization: Bearer TOKEN`"):
            parse_bearer(value, allow_bare=allow_bare)

    def test_token_without_a_scheme_is_accepted_only_where_it_is_allowed(self) -> None:
        assert parse_bearer(TOKEN, allow_bare=True) == TOKEN
        with pytest.raises(Unauthenticated, match="send `Authorization: Bearer TOKEN`") as refused:
            parse_bearer(TOKEN)
        assert TOKEN not in refused.value.message

    def test_several_lines_are_refused_even_if_they_are_equal(self) -> None:
        assert parse_bearer_lines([]) == ""
        assert parse_bearer_lines([f"Bearer {TOKEN}"]) == TOKEN
        for lines in ([f"Bearer {TOKEN}"] * 2, [f"Bearer {TOKEN}", ""], ["", ""]):
            with pytest.raises(InvalidInput, match="Authorization: must be sent once"):
                parse_bearer_lines(lines)


@pytest.mark.parametrize(
    ("error", "value"),
    [
        (Unauthenticated(), 'Bearer realm="wallet"'),
        (InvalidCredentials(), 'Bearer realm="wallet"'),
        (Unauthenticated.for_token("expired"), 'Bearer realm="wallet", error="invalid_token"'),
        (TokenTooLong("8192"), 'Bearer realm="wallet", error="invalid_token"'),
        (InvalidInput.for_field(AUTHORIZATION, "must be sent once"), 'Bearer realm="wallet", error="invalid_request"'),
        (InvalidInput.for_field("amount", "must be positive"), None),
        (PermissionDenied(), None),
        (Unavailable(), None),
    ],
)
def test_challenge_names_an_error_only_if_a_token_was_sent(error: WalletError, value: str | None) -> None:
    assert challenge(error) == value
