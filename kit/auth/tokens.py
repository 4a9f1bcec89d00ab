"""Issue signed tokens (JWT)."""

import secrets
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kit.auth.jwk import ALGORITHM, public_jwk
from kit.auth.principal import Role


class TokenSigner:
    """Issues tokens of one issuer. The private key is the issuer's identity: keep it secret."""

    def __init__(self, issuer: str, key: Ed25519PrivateKey, audience: str) -> None:
        """Args:
        issuer: `iss` of the tokens.
        key: private key that signs them.
        audience: `aud` of the tokens.
        """
        self._issuer = issuer
        self._key = key
        self._audience = audience
        self._kid = public_jwk(key.public_key())["kid"]

    @classmethod
    def from_file(cls, issuer: str, file: Path, audience: str) -> Self:
        """Load the private key from a PEM file (PKCS 8, Ed25519).

        Raises:
            TypeError: the file has another kind of key.
        """
        key = load_pem_private_key(file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError(f"{file} has no Ed25519 private key: create one with `openssl genpkey -algorithm ed25519`")
        return cls(issuer, key, audience)

    def sign(
        self, subject: str, lifetime_seconds: float, roles: Collection[Role] = (), *, session: str | None = None
    ) -> str:
        """Return a token for the subject, valid from now on.

        Args:
            subject: `sub` of the token.
            lifetime_seconds: time until the token expires.
            roles: roles of a user; a service has none. A user without roles has no access.
            session: `sid` of the token: id of the login session; None if the token does not come from a login.
        """
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
        if session is not None:
            claims["sid"] = session
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})


class ServiceTokenProvider:
    """Token that a service sends in its calls to other services. A new one is signed after half of the lifetime."""

    LIFETIME_SECONDS = 600

    def __init__(self, signer: TokenSigner, name: str) -> None:
        self._signer = signer
        self._name = name
        self._token = ""
        self._renew_at = 0.0

    def __call__(self) -> str:
        """Return a token that is valid for at least five more minutes."""
        if time.monotonic() >= self._renew_at:
            self._token = self._signer.sign(self._name, self.LIFETIME_SECONDS)
            self._renew_at = time.monotonic() + self.LIFETIME_SECONDS / 2
        return self._token
