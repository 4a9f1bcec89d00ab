"""JSON Web Keys: usable keys of a key set, and the JWK of our own public key."""

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kit.auth.jwk import InvalidKeySetError, public_jwk
from kit.auth.keys import KeySet
from tests.unit.kit.auth.key_sets import build_key_set, list_kids

KEY = Ed25519PrivateKey.generate()
FIRST, SECOND = (public_jwk(Ed25519PrivateKey.generate().public_key()) for _ in range(2))
P256 = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
RSA = jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key(), as_dict=True)
SHORT = jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
RFC_7638_KEY = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
    "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-"
    "65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-"
    "bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
}
"""The example in section 3.1 of RFC 7638, without its `kid`."""


class TestUsableKeys:
    @pytest.mark.parametrize(
        ("jwk", "algorithm"), [(FIRST, "EdDSA"), ({**P256, "kid": "k"}, "ES256"), ({**RSA, "kid": "k"}, "RS256")]
    )
    def test_public_key_for_the_algorithm_is_used(self, jwk: dict[str, Any], algorithm: Any) -> None:
        assert list_kids(KeySet.from_text(build_key_set(jwk), algorithm)) == [jwk["kid"]]
        others: set[Any] = {"EdDSA", "ES256", "RS256"} - {algorithm}
        for other in others:
            with pytest.raises(InvalidKeySetError, match=f"no key for {other}"):
                KeySet.from_text(build_key_set(jwk), other)

    @pytest.mark.parametrize(
        "changed",
        [
            {"alg": "ES256"},
            {"alg": "none"},
            {"use": "enc"},
            {"kid": None},
            {"kid": ["k"]},
            {"kty": "oct", "k": "c2VjcmV0"},
            {"crv": "Ed448"},
            {"x": "AA"},
            {"x": 7},
        ],
    )
    def test_key_that_is_invalid_or_for_another_algorithm_or_use_is_skipped(self, changed: dict[str, Any]) -> None:
        assert list_kids(KeySet.from_text(build_key_set({**SECOND, **changed}, FIRST))) == [FIRST["kid"]]

    @pytest.mark.parametrize(
        ("jwk", "algorithm", "thumbprint"),
        [
            (  # appendix A of RFC 8037
                {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
                "EdDSA",
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
            (RFC_7638_KEY, "RS256", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
        ],
    )
    def test_key_without_a_kid_gets_its_thumbprint(self, jwk: dict[str, Any], algorithm: Any, thumbprint: str) -> None:
        assert list_kids(KeySet.from_text(build_key_set(jwk), algorithm)) == [thumbprint]

    def test_short_rsa_key_is_skipped(self) -> None:
        with pytest.raises(InvalidKeySetError):
            KeySet.from_text(build_key_set({**SHORT, "kid": "short"}), "RS256")

    def test_published_key_set_has_no_private_members(self) -> None:
        private = jwt.algorithms.OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)
        document = KeySet.from_text(build_key_set({**private, "kid": "mine", "note": "keep me"})).jwks
        assert document is not None
        assert document["keys"][0].keys() == {"kty", "crv", "x", "alg", "use", "kid"}

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "null", "7", '{"keys": 7}', '{"keys": null}', '{"keys": [7, null, []]}', "<html>", "[" * 9999],
    )
    def test_text_without_a_usable_key_is_an_invalid_key_set(self, text: str) -> None:
        with pytest.raises(InvalidKeySetError):
            KeySet.from_text(text)


class TestPublicJwk:
    def test_public_jwk_has_no_private_member_and_a_thumbprint(self) -> None:
        jwk = public_jwk(KEY.public_key())
        assert jwk.keys() == {"kty", "crv", "x", "alg", "use", "kid"}
        assert jwk == public_jwk(KEY.public_key())
        assert jwk["kid"] != public_jwk(Ed25519PrivateKey.generate().public_key())["kid"]

    def test_thumbprint_matches_rfc_8037(self) -> None:
        # The key of appendix A.2 and its thumbprint in A.3.
        x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
        key = jwt.algorithms.OKPAlgorithm.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": x})
        assert public_jwk(key)["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # type: ignore[arg-type]  # public
