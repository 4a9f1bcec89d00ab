"""JSON Web Keys (RFC 7517): the only module that reads and writes them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from kit.runtime.settings import Algorithm

ALGORITHM: Final[Algorithm] = "EdDSA"
"""Signature algorithm of our own tokens: Ed25519 (RFC 8037)."""

_KEY_TYPES: Final[Mapping[Algorithm, Mapping[str, str]]] = {
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "RS256": {"kty": "RSA"},
}
_PUBLIC_MEMBERS: Final = ("kty", "crv", "x", "y", "n", "e")
"""Members of a public key (RFC 7518, RFC 8037); all other members, such as those of a private key, are dropped."""
_MIN_RSA_BITS: Final = 2_048


class InvalidKeySetError(Exception):
    """The text is not a JSON Web Key Set, or has no usable key. The message is for operators."""


@dataclass(frozen=True, slots=True, eq=False)
class PublicKey:
    """Public key of an issuer.

    Attributes:
        jwk: the key without private members, with `kid`, `alg` and `use`.
        key: the same key as an object of PyJWT, which verifies signatures with it.
        ed25519: the 32 bytes of an Ed25519 key, with which libsodium verifies signatures; None for another kind of key.
    """

    jwk: Mapping[str, str]
    key: jwt.PyJWK
    ed25519: bytes | None = None


def public_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    """Return the key as a JWK for a key set. Its `kid` is its RFC 7638 thumbprint."""
    jwk = jwt.algorithms.OKPAlgorithm.to_jwk(key, as_dict=True)
    return {**jwk, "alg": ALGORITHM, "use": "sig", "kid": _thumbprint(jwk)}


def _thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the RFC 7638 thumbprint: the hash of the members that every key of the type must have."""
    required = {name: jwk[name] for name in sorted(_PUBLIC_MEMBERS) if name in jwk}
    text = json.dumps(required, separators=(",", ":"))
    return jwt.utils.base64url_encode(hashlib.sha256(text.encode()).digest()).decode()


def parse_key_set(text: bytes, algorithm: Algorithm) -> dict[str, PublicKey]:
    """Return, by `kid`, those keys of a JSON Web Key Set that can verify signatures of the algorithm.

    A key without a `kid` gets its RFC 7638 thumbprint as `kid`. Three kinds of keys are skipped: keys for another
    algorithm or for another use than signatures, invalid keys, and RSA keys below 2,048 bits.

    Raises:
        InvalidKeySetError: the text is not a JSON object with the member `keys`.
    """
    try:
        published = json.loads(text)["keys"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InvalidKeySetError(f"not a JSON Web Key Set: {type(error).__name__}") from None
    keys = [_parse_key(jwk, algorithm) for jwk in published] if isinstance(published, list) else []
    return {key.jwk["kid"]: key for key in keys if key is not None}


def _parse_key(jwk: Any, algorithm: Algorithm) -> PublicKey | None:
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid", ""), str):
        return None
    if any(jwk.get(name) != value for name, value in _KEY_TYPES[algorithm].items()):
        return None
    if jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    public = {name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}
    public |= {"alg": algorithm, "use": "sig", "kid": jwk["kid"] if "kid" in jwk else _thumbprint(public)}
    try:
        key = jwt.PyJWK(public)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _MIN_RSA_BITS:
        return None
    return PublicKey(public, key, key.key.public_bytes_raw() if isinstance(key.key, Ed25519PublicKey) else None)
