"""`Authorization` values: schemes, tokens without a scheme, several values, and the challenge of a refusal."""

import pytest

from kit.auth.bearer import AUTHORIZATION, challenge, has_other_scheme, parse_bearer, parse_bearer_lines
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
    def test_scheme_is_matched_without_regard_to_case(self, scheme: str) -> None:
        assert parse_bearer(f"{scheme} {TOKEN}") == TOKEN

    def test_spaces_around_scheme_and_token_are_ignored(self) -> None:
        assert parse_bearer(f" \tBearer   {TOKEN} \t ") == TOKEN

    @pytest.mark.parametrize("value", ["", " ", "Bearer", "Bearer ", "bearer  ", "Bearer \t"])
    def test_value_without_a_token_is_parsed_as_empty(self, value: str) -> None:
        assert parse_bearer(value) == ""

    @pytest.mark.parametrize(
        "value",
        [
            f"Basic {TOKEN}",
            f"Token token={TOKEN}",
            f"Bearer{TOKEN} x",
            f"Bearer: {TOKEN}",
            *(f"Bearer{space}{TOKEN}" for space in ("", "\t", "\n", "\xa0", "\u2003")),
            *(f"{space}{TOKEN}" for space in ("", " ", "\xa0")),
            f"{TOKEN}\xa0",
        ],
    )
    def test_token_without_the_scheme_is_refused_and_not_quoted(self, value: str) -> None:
        with pytest.raises(Unauthenticated, match="write `Bearer` before the token") as refused:
            parse_bearer(value)
        assert TOKEN not in refused.value.message

    @pytest.mark.parametrize("token", [f"\t{TOKEN}", f"{TOKEN}\n", f"{TOKEN}\xa0", f"a {TOKEN}"])
    def test_token_is_not_changed_so_that_a_malformed_one_is_refused(self, token: str) -> None:
        assert parse_bearer(f"Bearer {token}") == token

    def test_several_lines_are_refused_even_if_they_are_equal(self) -> None:
        assert parse_bearer_lines([]) == ""
        assert parse_bearer_lines([f"Bearer {TOKEN}"]) == TOKEN
        for lines in ([f"Bearer {TOKEN}"] * 2, [f"Bearer {TOKEN}", ""], ["", ""]):
            with pytest.raises(InvalidInput, match="Authorization: must be sent once"):
                parse_bearer_lines(lines)

    @pytest.mark.parametrize("more", [f"Bearer {TOKEN}", f"bearer {TOKEN}", "Basic YTpi", "Bearer", ""])
    def test_lines_that_a_proxy_has_joined_are_refused_as_several(self, more: str) -> None:
        line = f"Bearer {TOKEN}"
        for value in (f"{line}, {more}", f"{line},{more}", f"{more}, {line}", f"{more},{line}"):
            with pytest.raises(InvalidInput, match="Authorization: must be sent once"):
                parse_bearer(value)

    def test_comma_in_credentials_of_another_scheme_is_not_mistaken_for_several_lines(self) -> None:
        with pytest.raises(Unauthenticated, match="write `Bearer` before the token"):
            parse_bearer("Digest username=a, realm=bearer")

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("Basic YTpi", True),
            ("Digest username=a, realm=bearer", True),
            ("Basic YTpi, Bearer YTpi", False),
            ("Digest username=a,bearer  YTpi", False),
            *((f"{first}, Bearer YTpi", False) for first in ("", "Negotiate", "Bearer", "Basic YTpi, Digest a=b")),
            ("Bearer,Bearer YTpi", False),
            ("Bearer YTpi", False),
            ("bearer  YTpi", False),
            ("Bearer", False),
            (TOKEN, False),
            (f" {TOKEN} ", False),
            ("", False),
        ],
    )
    def test_credentials_of_another_scheme_are_not_mistaken_for_a_token(self, value: str, *, expected: bool) -> None:
        assert has_other_scheme(value) is expected


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
