"""Invalid access tokens, which every service must refuse."""

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


def forge_tokens(private: Ed25519PrivateKey, subject: str) -> dict[str, str]:
    """Return invalid variants of the subject's token, by kind."""
    public, other_key = private.public_key(), Ed25519PrivateKey.generate()
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + 600, "roles": ["customer"]}
    kid = public_jwk(public)["kid"]

    def sign(key: Ed25519PrivateKey = private, kid: str = kid, **changed: Any) -> str:
        return jwt.encode(claims | changed, key, "EdDSA", headers={"kid": kid})

    return {
        "expired": sign(iat=now - 700, exp=now - 60),
        "not yet valid": sign(nbf=now + 300),
        "signed by another key": sign(other_key),
        "alg none": _encode({"alg": "none", "typ": "JWT", "kid": kid}, claims, b""),
        "HS256 with the public key": _encode({"alg": "HS256", "typ": "JWT", "kid": kid}, claims, public),
        "another audience": sign(aud="elsewhere"),
        "another issuer": sign(iss="https://elsewhere.test"),
        "unknown key id": sign(other_key, public_jwk(other_key.public_key())["kid"]),
    }


def _encode(header: dict[str, Any], claims: dict[str, Any], key: Ed25519PublicKey | bytes) -> str:
    def encoded(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).decode().rstrip("=")

    text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    if isinstance(key, bytes):
        return f"{text}.{encoded(key)}"
    secret = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"
