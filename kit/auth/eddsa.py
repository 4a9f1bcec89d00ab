"""Quick verification of the tokens that this project issues: signed by Ed25519, with the usual claims.

PyJWT verifies all kinds of tokens and explains what is wrong with one. Half of its time for one token is that of
OpenSSL's Ed25519, and a fifth is reading and checking the claims. libsodium verifies in half of OpenSSL's time. So this
module accepts a token of the usual form, and leaves every other token to PyJWT.
"""

import base64
import re
import time
from collections.abc import Mapping
from typing import Any, Final

import jwt
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

_HEADER_NAMES: Final = frozenset({"alg", "kid", "typ"})
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")
"""Text of a token. Python's decoder of base64 skips other characters. The signature has 64 bytes."""


def verify_usual_token(
    token: str,
    header: Mapping[str, Any],
    claims: Mapping[str, Any],
    public_key: bytes,
    *,
    audience: str,
    leeway_seconds: float,
) -> bool:
    """Return whether the token has the usual form, is within its lifetime, and is signed by the key.

    False means that PyJWT must decide: the token may be valid in another form, or it has a defect other than its
    signature.

    Args:
        token: the compact JWT.
        header: its decoded header.
        claims: its decoded claims.
        public_key: the 32 bytes of the Ed25519 key. The caller has chosen it by the token's issuer and `kid`.
        audience: `aud` that the token must name.
        leeway_seconds: tolerated difference between the clocks of the issuer and of this process.

    Raises:
        jwt.InvalidSignatureError: the token has the usual form, but its signature is wrong. libsodium also refuses
            the few signatures that OpenSSL accepts and that no honest signer makes (RFC 8032 permits either).
    """
    if not (
        _TOKEN.fullmatch(token) and _is_usual_header(header) and _are_usual_claims(claims, audience, leeway_seconds)
    ):
        return False
    signed, _, signature = token.rpartition(".")
    try:
        crypto_sign_open(base64.urlsafe_b64decode(signature + "==") + signed.encode(), public_key)
    except BadSignatureError:
        raise jwt.InvalidSignatureError from None
    return True


def _is_usual_header(header: Mapping[str, Any]) -> bool:
    return header.keys() <= _HEADER_NAMES and header.get("alg") == "EdDSA" and isinstance(header.get("kid", ""), str)


def _are_usual_claims(claims: Mapping[str, Any], audience: str, leeway_seconds: float) -> bool:
    """Return whether the claims are of the usual types and valid now."""
    issued, expires, now = claims.get("iat"), claims.get("exp"), time.time()
    return (
        type(issued) is int
        and type(expires) is int
        and issued <= now + leeway_seconds
        and expires > now - leeway_seconds
        and claims.get("aud") == audience
        and isinstance(claims.get("sub"), str)
        and isinstance(claims.get("jti", ""), str)
        and "nbf" not in claims
    )
