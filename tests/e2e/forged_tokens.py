"""Tokens that no service may believe."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kit.auth.jwk import public_jwk
from stack.plan import AUDIENCE, ISSUER


def forged(private: Ed25519PrivateKey, subject: str) -> dict[str, str]:
    """The owner's token, each time with something wrong about it."""
    public, stranger = private.public_key(), Ed25519PrivateKey.generate()
    now = int(time.time())
    good = {"iss": ISSUER, "sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + 600, "roles": ["customer"]}
    kid = public_jwk(public)["kid"]

    def signed(key: Ed25519PrivateKey = private, kid: str = kid, **changed: Any) -> str:
        return jwt.encode(good | changed, key, "EdDSA", headers={"kid": kid})

    return {
        "expired": signed(iat=now - 700, exp=now - 60),
        "not yet valid": signed(nbf=now + 300),
        "wrongly signed": signed(stranger),
        "alg none": _by_hand({"alg": "none", "typ": "JWT", "kid": kid}, good, b""),
        "HS256 by the public key": _by_hand({"alg": "HS256", "typ": "JWT", "kid": kid}, good, public),
        "of another audience": signed(aud="elsewhere"),
        "of another issuer": signed(iss="https://elsewhere.test"),
        "of an unknown key": signed(stranger, public_jwk(stranger.public_key())["kid"]),
    }


def _by_hand(header: dict[str, Any], claims: dict[str, Any], key: Ed25519PublicKey | bytes) -> str:
    def encoded(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).decode().rstrip("=")

    text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    if isinstance(key, bytes):
        return f"{text}.{encoded(key)}"
    secret = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"
