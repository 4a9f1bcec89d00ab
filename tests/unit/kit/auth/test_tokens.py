"""Token signer, and tokens of services."""

import json
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kit.auth import tokens
from kit.auth.jwk import public_jwk
from kit.auth.keys import KeySet
from kit.auth.principal import Role, TokenVerifier
from kit.auth.tokens import ServiceTokenProvider, TokenSigner

KEY = Ed25519PrivateKey.generate()
JWKS = json.dumps({"keys": [public_jwk(KEY.public_key())]})


class Clock:
    """Manual clock in place of the `time` module."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tokens, "time", clock)
    return clock


class TestTokenSigner:
    async def test_signed_token_is_accepted(self) -> None:
        verifier = TokenVerifier("users", {"users": KeySet.from_text(JWKS)}, "wallet")
        caller = await verifier.verify(TokenSigner("users", KEY, "wallet").sign("alice", 60))
        assert (caller.issuer, caller.subject) == ("users", "alice")
        assert caller.expires_at == pytest.approx(time.time() + 60, abs=2)

    def test_token_has_roles_and_a_unique_id(self) -> None:
        signer = TokenSigner("users", KEY, "wallet")
        tokens = [signer.sign("alice", 60, [Role.OPERATOR, Role.CUSTOMER]) for _ in range(2)]
        first, second = (jwt.decode(token, options={"verify_signature": False}) for token in tokens)
        assert first["roles"] == ["customer", "operator"]
        assert first["jti"] != second["jti"]

    def test_key_is_read_from_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "key.pem"
        file.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        header = jwt.get_unverified_header(TokenSigner.from_file("users", file, "wallet").sign("alice", 60))
        assert header == {"alg": "EdDSA", "typ": "JWT", "kid": public_jwk(KEY.public_key())["kid"]}

    def test_key_of_another_type_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "key.pem"
        other = ec.generate_private_key(ec.SECP256R1())
        file.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(TypeError, match="has no Ed25519 private key"):
            TokenSigner.from_file("users", file, "wallet")


class TestServiceTokenProvider:
    def test_service_token_is_reused(self, clock: Clock) -> None:
        token = ServiceTokenProvider(TokenSigner("card", KEY, "wallet"), "card")
        first = token()
        clock.now += ServiceTokenProvider.LIFETIME_SECONDS / 2 - 1
        assert token() == first

    def test_service_token_is_renewed_after_half_of_its_lifetime(self, clock: Clock) -> None:
        token = ServiceTokenProvider(TokenSigner("card", KEY, "wallet"), "card")
        first = token()
        clock.now += ServiceTokenProvider.LIFETIME_SECONDS / 2
        renewed = token()
        assert renewed != first
        claims = jwt.decode(renewed, options={"verify_signature": False})
        assert claims["exp"] == clock.now + ServiceTokenProvider.LIFETIME_SECONDS
        assert (claims["iss"], claims["sub"]) == ("card", "card")
