"""Tokens of the usual form: the quick verification decides as PyJWT does."""

import base64
import dataclasses
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from kit.auth.jwk import public_jwk
from kit.auth.keys import KeySet
from kit.auth.principal import Principal, Role, TokenVerifier
from kit.auth.tokens import TokenSigner
from tests.unit.kit.auth.key_sets import build_key_set
from wallet.errors import Unauthenticated

USERS, CARD, AUDIENCE = "https://users.test", "card", "wallet"
KEYS = {issuer: Ed25519PrivateKey.generate() for issuer in (USERS, CARD)}
OTHER_KEY = Ed25519PrivateKey.generate()
NOW = int(time.time())
EXPIRY = NOW + 24 * 3600
"""Later than the end of the longest test run."""

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [NOW - 900, NOW - 2, NOW + 2, NOW + 600, 2**70, -1, 0, 1.5, NOW + 600.5, float("inf"), float("nan")]
    ),
    st.sampled_from([USERS, CARD, AUDIENCE, "", "alice", str(NOW + 600), "a\n", "x" * 300, "EdDSA", "none", "JWT"]),
    st.sampled_from([[], [AUDIENCE], ["other", AUDIENCE], ["admin", "CUSTOMER", 7], {}, {"a": "b"}, [[AUDIENCE]]]),
)
CLAIM_CHANGES = st.dictionaries(
    st.sampled_from(["iss", "sub", "aud", "iat", "exp", "nbf", "jti", "roles", "sid", "crit", "alg", "more"]),
    VALUES,
    max_size=3,
)
HEADER_CHANGES = st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "x5c", "zip", "exp"]), VALUES, max_size=2
)


def build_verifier(*, quick: bool) -> TokenVerifier:
    """Return a verifier. Without `quick` its keys are unknown to libsodium, so PyJWT decides alone."""
    keys = {
        issuer: KeySet.from_text(build_key_set(public_jwk(private.public_key()))) for issuer, private in KEYS.items()
    }
    if not quick:
        for key_set in keys.values():
            assert key_set._keys
            key_set._keys = {kid: dataclasses.replace(key, ed25519=None) for kid, key in key_set._keys.items()}
    return TokenVerifier(USERS, keys, AUDIENCE)


QUICK, PYJWT = build_verifier(quick=True), build_verifier(quick=False)


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def decide(verifier: TokenVerifier, token: str) -> Principal | str | None:
    """Return the principal, or the message of the refusal."""
    try:
        return verifier.verify_now(token)
    except Unauthenticated as refusal:
        return str(refusal)


def build_token(
    issuer: str, key: Ed25519PrivateKey, header_changes: dict[str, Any], claim_changes: dict[str, Any]
) -> str:
    """Return a token signed by the key, with any header and claims."""
    kid = public_jwk(KEYS[issuer].public_key())["kid"]
    header = {"alg": "EdDSA", "typ": "JWT", "kid": kid, **header_changes}
    subject = CARD if issuer == CARD else "alice"
    claims = {"iss": issuer, "sub": subject, "aud": AUDIENCE, "iat": NOW, "exp": EXPIRY, "jti": "1", **claim_changes}
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(key.sign(signed.encode()))}"


@pytest.mark.parametrize("issuer", [USERS, CARD])
@given(header_changes=HEADER_CHANGES, claim_changes=CLAIM_CHANGES)
@example(header_changes={}, claim_changes={})
@example(header_changes={"b64": False, "crit": ["b64"]}, claim_changes={})
@example(header_changes={}, claim_changes={"nbf": NOW + 600})
def test_header_and_claims_are_judged_as_by_pyjwt(
    issuer: str, header_changes: dict[str, Any], claim_changes: dict[str, Any]
) -> None:
    token = build_token(issuer, KEYS[issuer], header_changes, claim_changes)
    assert decide(QUICK, token) == decide(PYJWT, token)


@given(data=st.data())
def test_changed_text_is_accepted_only_if_pyjwt_accepts_it(data: st.DataObject) -> None:
    token = build_token(USERS, KEYS[USERS], {}, {})
    position = data.draw(st.integers(0, len(token)))
    removed = data.draw(st.integers(0, 3))
    inserted = data.draw(st.text("Aa0-_+/=. \n~é\x00", max_size=3))
    changed = token[:position] + inserted + token[position + removed :]
    quick, pyjwt = decide(QUICK, changed), decide(PYJWT, changed)
    if isinstance(quick, str) and isinstance(pyjwt, str):
        return  # the reasons may differ: PyJWT finds some characters malformed that make the signature wrong, too
    assert quick == pyjwt


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_signature_of_any_length_is_judged_as_by_pyjwt(signature: bytes) -> None:
    signed = build_token(USERS, KEYS[USERS], {}, {}).rpartition(".")[0]
    token = f"{signed}.{encode(signature)}"
    assert decide(QUICK, token) == decide(PYJWT, token) != QUICK.verify_now(build_token(USERS, KEYS[USERS], {}, {}))


def test_signature_of_another_key_is_refused_without_pyjwt(monkeypatch: pytest.MonkeyPatch) -> None:
    token = build_token(USERS, OTHER_KEY, {}, {})
    expected = decide(PYJWT, token)
    monkeypatch.setattr(jwt, "decode", None)
    assert decide(QUICK, token) == expected
    assert "signature is wrong" in str(expected)


def test_own_tokens_are_verified_without_pyjwt(monkeypatch: pytest.MonkeyPatch) -> None:
    user = TokenSigner(USERS, KEYS[USERS], AUDIENCE).sign("alice", 600, [Role.CUSTOMER], session="1")
    service = TokenSigner(CARD, KEYS[CARD], AUDIENCE).sign(CARD, 600)
    expected = [decide(PYJWT, token) for token in (user, service)]
    monkeypatch.setattr(jwt, "decode", None)
    assert [decide(QUICK, token) for token in (user, service)] == expected
    assert all(isinstance(caller, Principal) for caller in expected)


@pytest.mark.parametrize("extra", ["\0", "\n", " ", "=", "é", "A", "."])
def test_character_inserted_anywhere_is_refused(extra: str) -> None:
    token = build_token(USERS, KEYS[USERS], {}, {})
    assert isinstance(QUICK.verify_now(token), Principal)
    for position in range(len(token) + 1):
        changed = token[:position] + extra + token[position:]
        assert isinstance(decide(QUICK, changed), str), position


@pytest.mark.parametrize("verifier", [QUICK, PYJWT], ids=["quick", "PyJWT"])
def test_other_texts_of_the_same_signature_are_refused(verifier: TokenVerifier) -> None:
    token = build_token(USERS, KEYS[USERS], {}, {})
    assert isinstance(verifier.verify_now(token), Principal)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    first = alphabet.index(token[-1])
    others = [f"{token[:-1]}{alphabet[first + unused]}" for unused in range(1, 16)]
    for text in [*others, f"{token}=", f"{token}==", f"{token}===="]:
        with pytest.raises(Unauthenticated, match="malformed"):
            verifier.verify_now(text)
