"""Issuing tokens, and the public half of what signs them."""

import hashlib
import json
import secrets
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kit.auth.keys import ALGORITHM
from kit.auth.principal import Role


def public_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    """The key as a JWK for a key set; its `kid` is its RFC 7638 thumbprint."""
    jwk = jwt.algorithms.OKPAlgorithm.to_jwk(key, as_dict=True)
    required = json.dumps({name: jwk[name] for name in ("crv", "kty", "x")}, separators=(",", ":"))
    thumbprint = jwt.utils.base64url_encode(hashlib.sha256(required.encode()).digest()).decode()
    return {**jwk, "alg": ALGORITHM, "use": "sig", "kid": thumbprint}


class TokenSigner:
    """Issues tokens in the name of one issuer. Whoever holds the private key is that issuer."""

    def __init__(self, issuer: str, key: Ed25519PrivateKey, audience: str) -> None:
        self._issuer = issuer
        self._key = key
        self._audience = audience
        self._kid = public_jwk(key.public_key())["kid"]

    @classmethod
    def from_file(cls, issuer: str, file: Path, audience: str) -> Self:
        """Args:
        issuer: the `iss` of the tokens.
        file: the private key, PEM (PKCS 8), Ed25519.
        audience: the `aud` of the tokens.
        """
        key = load_pem_private_key(file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError(f"{file} holds no Ed25519 private key")
        return cls(issuer, key, audience)

    def sign(self, subject: str, lifetime_seconds: float, roles: Collection[Role] = ()) -> str:
        """A token for the subject, valid from now on. The roles are a user's; without any it opens nothing."""
        now = time.time()
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": subject,
            "aud": self._audience,
            "iat": int(now),
            "exp": int(now + lifetime_seconds),
            "jti": secrets.token_hex(16),
        }
        if roles:
            claims["roles"] = sorted(roles)
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})


class ServiceTokenProvider:
    """The token by which a service calls another one, renewed well before it expires."""

    LIFETIME_SECONDS = 600

    def __init__(self, signer: TokenSigner, name: str) -> None:
        self._signer = signer
        self._name = name
        self._token = ""
        self._renew_at = 0.0

    def __call__(self) -> str:
        """A token that is valid for minutes to come."""
        if time.monotonic() >= self._renew_at:
            self._token = self._signer.sign(self._name, self.LIFETIME_SECONDS)
            self._renew_at = time.monotonic() + self.LIFETIME_SECONDS / 2
        return self._token
