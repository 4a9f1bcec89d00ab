"""Token verification: valid and refused tokens, roles, the cache and key rotation."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from kit.auth import principal
from kit.auth.jwk import InvalidKeySetError, public_jwk
from kit.auth.keys import KeySet
from kit.auth.principal import Principal, Role, TokenVerifier
from kit.runtime.settings import Algorithm, AuthSettings
from tests.unit.kit.auth.key_sets import build_key_set
from wallet.errors import TokenTooLong, Unauthenticated

USERS, CARD, BANK = "https://users.test", "card", "bank"
AUDIENCE = "wallet"
CLOSE_REASON_BYTES = 123
"""Maximum length of a WebSocket's close reason (RFC 6455, 5.5)."""
PRIVATE = {issuer: Ed25519PrivateKey.generate() for issuer in (USERS, CARD, BANK)}
UNKNOWN_KEY = Ed25519PrivateKey.generate()
EXTERNAL_KEYS: dict[Algorithm, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
}


def build_jwk(key: Any, name: str) -> dict[str, Any]:
    """Return the public key of a private key as a JWK."""
    kinds: dict[type, Any] = {
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
    }
    algorithm = next(algorithm for kind, algorithm in kinds.items() if isinstance(key, kind))
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": name}


def kid(key: Ed25519PrivateKey) -> str:
    return public_jwk(key.public_key())["kid"]


def token(
    key: Ed25519PrivateKey = PRIVATE[USERS],
    *,
    without: str = "",
    headers: dict[str, Any] | None = None,
    **changes: Any,
) -> str:
    """Return a signed user token, which is valid unless the arguments change that."""
    now = int(time.time())
    claims: dict[str, Any] = {"iss": USERS, "sub": "alice", "aud": AUDIENCE, "iat": now, "exp": now + 600, **changes}
    claims.pop(without, None)
    # jwt.encode refuses some invalid claims itself, so the token is encoded as a JWS.
    return jwt.PyJWS().encode(
        json.dumps(claims).encode(), key, "EdDSA", {"kid": kid(key)} if headers is None else headers
    )


def encode_parts(header: dict[str, Any], payload: bytes, signature: bytes = b"") -> str:
    """Encode any three parts as a token, including combinations that no library encodes."""
    parts = (json.dumps(header).encode(), payload, signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.fixture(scope="module")
def verifier() -> TokenVerifier:
    return create_verifier()


def create_verifier() -> TokenVerifier:
    keys = {issuer: [public_jwk(key.public_key())] for issuer, key in PRIVATE.items()}
    return TokenVerifier(
        USERS, {issuer: KeySet.from_text(json.dumps({"keys": jwks})) for issuer, jwks in keys.items()}, AUDIENCE
    )


class TestValidTokens:
    async def test_user_token_yields_the_user(self, verifier: TokenVerifier) -> None:
        caller = await verifier.verify(token(exp=2_000_000_000))
        assert caller == Principal(
            USERS, "alice", is_service=False, expires_at=2_000_000_000, leeway_seconds=principal.DEFAULT_LEEWAY_SECONDS
        )
        assert caller.scope == "https://users.test|alice"

    async def test_service_token_yields_the_service(self, verifier: TokenVerifier) -> None:
        caller = await verifier.verify(token(PRIVATE[CARD], iss=CARD, sub=CARD))
        assert (caller.subject, caller.is_service) == (CARD, True)

    async def test_session_of_the_token_is_kept(self, verifier: TokenVerifier) -> None:
        assert (await verifier.verify(token(sid="a-session"))).session == "a-session"

    @pytest.mark.parametrize("sid", [None, 7, ["a-session"], {"a": "session"}])
    async def test_session_that_is_no_text_is_ignored(self, verifier: TokenVerifier, sid: object) -> None:
        assert (await verifier.verify(token(sid=sid))).session is None

    async def test_one_matching_audience_of_several_is_enough(self, verifier: TokenVerifier) -> None:
        assert (await verifier.verify(token(aud=["elsewhere", AUDIENCE]))).subject == "alice"

    async def test_clock_difference_of_some_seconds_is_tolerated(self, verifier: TokenVerifier) -> None:
        now = int(time.time())
        assert (await verifier.verify(token(iat=now + 2, nbf=now + 2))).subject == "alice"
        assert (await verifier.verify(token(exp=now - 2))).subject == "alice"

    @pytest.mark.parametrize("leeway_seconds", [0, 60])
    async def test_tolerated_clock_difference_is_the_configured_one(self, leeway_seconds: int) -> None:
        keys = {USERS: KeySet.from_text(build_key_set(public_jwk(PRIVATE[USERS].public_key())))}
        verifier = TokenVerifier(USERS, keys, AUDIENCE, leeway_seconds=leeway_seconds)
        now = int(time.time())
        for changed in (token(exp=now - 30), token(iat=now + 30), token(nbf=now + 30)):
            if leeway_seconds:
                caller = await verifier.verify(changed)
                assert caller.valid_until == caller.expires_at + leeway_seconds
            else:
                with pytest.raises(Unauthenticated):
                    await verifier.verify(changed)

    async def test_token_without_a_kid_is_accepted_while_one_key_is_published(self) -> None:
        own, other = (public_jwk(key.public_key()) for key in (PRIVATE[USERS], UNKNOWN_KEY))
        one = TokenVerifier(USERS, {USERS: KeySet.from_text(build_key_set(own))}, AUDIENCE)
        assert (await one.verify(token(headers={}))).subject == "alice"
        two = TokenVerifier(USERS, {USERS: KeySet.from_text(build_key_set(own, other))}, AUDIENCE)
        with pytest.raises(Unauthenticated, match="names none of the keys"):
            await two.verify(token(headers={}))

    async def test_issuer_that_uses_no_kid_at_all_is_accepted(self) -> None:
        jwk = public_jwk(PRIVATE[USERS].public_key())
        del jwk["kid"]
        verifier = TokenVerifier(USERS, {USERS: KeySet.from_text(build_key_set(jwk))}, AUDIENCE)
        assert (await verifier.verify(token(headers={}))).subject == "alice"

    def test_stream_ends_at_the_expiry_or_later_if_it_starts_within_the_leeway(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        caller = Principal(USERS, "alice", is_service=False, expires_at=1_000, leeway_seconds=30)
        for now, seconds in ((400, 600), (1_000, 30), (1_010, 20)):
            monkeypatch.setattr(principal, "time", FrozenTime(now))
            assert caller.stream_seconds() == seconds


class TestRoles:
    @pytest.mark.parametrize(
        ("claim", "roles"),
        [
            (["customer"], {Role.CUSTOMER}),
            (["Operator", "ADMIN"], {Role.OPERATOR, Role.ADMIN}),
            (["customer", "king", 7, None, ["admin"]], {Role.CUSTOMER}),
            ([], set()),
            ("admin", set()),
            ({"admin": True}, set()),
            (None, set()),
        ],
    )
    async def test_known_roles_of_the_claim_are_used(
        self, verifier: TokenVerifier, claim: object, roles: set[Role]
    ) -> None:
        assert (await verifier.verify(token(roles=claim))).roles == roles

    async def test_user_without_the_claim_has_no_roles(self, verifier: TokenVerifier) -> None:
        assert (await verifier.verify(token())).roles == frozenset()

    async def test_service_has_no_roles(self, verifier: TokenVerifier) -> None:
        caller = await verifier.verify(token(PRIVATE[CARD], iss=CARD, sub=CARD, roles=["admin"]))
        assert caller.roles == frozenset()
        assert not caller.can_write_all

    @pytest.mark.parametrize(
        ("role", "can_read_all", "can_write_all"),
        [(Role.CUSTOMER, False, False), (Role.OPERATOR, True, False), (Role.ADMIN, True, True)],
    )
    def test_roles_give_read_and_write_access(self, role: Role, *, can_read_all: bool, can_write_all: bool) -> None:
        caller = Principal(USERS, "alice", is_service=False, expires_at=0, roles=frozenset({role}))
        assert (caller.can_read_all, caller.can_write_all) == (can_read_all, can_write_all)


class TestRefusedTokens:
    @pytest.mark.parametrize(
        ("forge", "reason"),
        [
            pytest.param(lambda: token(exp=int(time.time()) - 3600), "has expired", id="expired"),
            pytest.param(lambda: token(nbf=int(time.time()) + 3600), "it is not valid yet", id="not yet valid"),
            pytest.param(lambda: token(UNKNOWN_KEY), "names none of the keys", id="unknown key"),
            pytest.param(
                lambda: token(UNKNOWN_KEY, headers={"kid": kid(PRIVATE[USERS])}),
                "its signature is wrong",
                id="unknown key with a known kid",
            ),
            pytest.param(lambda: token(aud="elsewhere"), "it is for another audience", id="another audience"),
            pytest.param(lambda: token(without="aud"), "a required claim is missing", id="no audience"),
            pytest.param(lambda: token(iss="https://evil.test"), "its issuer is not trusted", id="unknown issuer"),
            pytest.param(lambda: token(iss=[USERS]), "its issuer is not trusted", id="issuer is a list"),
            pytest.param(lambda: token(without="iss"), "its issuer is not trusted", id="no issuer"),
            pytest.param(
                lambda: token(UNKNOWN_KEY, headers={}), "its signature is wrong", id="unknown key without a kid"
            ),
            pytest.param(lambda: token(headers={"kid": ""}), "names none of the keys", id="empty kid"),
            pytest.param(lambda: token(headers={"kid": "?"}), "names none of the keys", id="unknown kid"),
            pytest.param(lambda: token(without="exp"), "a required claim is missing", id="no expiry"),
            pytest.param(lambda: token(without="iat"), "a required claim is missing", id="no time of issue"),
            pytest.param(lambda: token(without="sub"), "a required claim is missing", id="no subject"),
            pytest.param(lambda: token(sub=7), "a claim has an invalid value", id="subject is a number"),
            pytest.param(lambda: token(sub=""), "a claim has an invalid value", id="subject is empty"),
            pytest.param(
                lambda: token(exp=10**400), "a claim has an invalid value", id="expiry does not fit into a float"
            ),
            pytest.param(lambda: token(exp=float("inf")), "it is malformed", id="expiry is infinite"),
            pytest.param(lambda: token(exp="soon"), "it is malformed", id="expiry is text"),
            pytest.param(
                lambda: token(PRIVATE[CARD]), "names none of the keys", id="users' issuer, signed by a service"
            ),
            pytest.param(
                lambda: token(iss=CARD, sub=CARD),
                "names none of the keys",
                id="service, signed by the users' issuer",
            ),
            pytest.param(
                lambda: token(PRIVATE[BANK], iss=CARD, sub=CARD),
                "names none of the keys",
                id="service, signed by another service",
            ),
            pytest.param(
                lambda: token(PRIVATE[CARD], iss=CARD, sub=BANK),
                "a claim has an invalid value",
                id="subject is another service",
            ),
            pytest.param(
                lambda: token(PRIVATE[CARD], iss=CARD, sub="alice"),
                "a claim has an invalid value",
                id="subject of a service is a user",
            ),
        ],
    )
    async def test_refusal_names_the_reason(
        self, verifier: TokenVerifier, forge: Callable[[], str], reason: str
    ) -> None:
        with pytest.raises(Unauthenticated, match=reason) as refused:
            await verifier.verify(forge())
        assert refused.value.token_error == "invalid_token"
        assert len(refused.value.message.encode()) <= CLOSE_REASON_BYTES

    async def test_alg_none_is_refused(self, verifier: TokenVerifier) -> None:
        claims = jwt.decode(token(), options={"verify_signature": False})
        for alg in ("none", "None", "NONE", ""):
            unsigned = encode_parts({"alg": alg, "typ": "JWT", "kid": kid(PRIVATE[USERS])}, json.dumps(claims).encode())
            with pytest.raises(Unauthenticated, match="not valid"):
                await verifier.verify(unsigned)

    async def test_public_key_as_hmac_secret_is_refused(self, verifier: TokenVerifier) -> None:
        public = PRIVATE[USERS].public_key()
        claims = jwt.decode(token(), options={"verify_signature": False})
        forms = [
            public.public_bytes(Encoding.Raw, PublicFormat.Raw),
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(public_jwk(public)).encode(),
        ]
        for secret in forms:
            unsigned = encode_parts(
                {"alg": "HS256", "typ": "JWT", "kid": kid(PRIVATE[USERS])}, json.dumps(claims).encode()
            )
            signing_input, _, _ = unsigned.rpartition(".")
            signature = hmac.digest(secret, signing_input.encode(), hashlib.sha256)
            forged = f"{signing_input}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
            with pytest.raises(Unauthenticated, match="its signature algorithm is not accepted"):
                await verifier.verify(forged)

    async def test_key_inside_the_token_is_ignored(self, verifier: TokenVerifier) -> None:
        headers = {"kid": kid(PRIVATE[USERS]), "jwk": public_jwk(UNKNOWN_KEY.public_key())}
        with pytest.raises(Unauthenticated, match="its signature is wrong"):
            await verifier.verify(token(UNKNOWN_KEY, headers=headers))

    @pytest.mark.parametrize("part", [0, 1, 2])
    async def test_change_of_any_part_is_refused(self, verifier: TokenVerifier, part: int) -> None:
        parts, others = token().split("."), token(sub="bob", headers={"kid": kid(PRIVATE[USERS]), "x": 1}).split(".")
        parts[part] = others[part]
        with pytest.raises(Unauthenticated, match="its signature is wrong"):
            await verifier.verify(".".join(parts))

    @given(st.text() | st.lists(st.text("abcABC123-_"), min_size=3, max_size=3).map(".".join))
    async def test_text_that_is_no_token_is_refused(self, text: str) -> None:
        with pytest.raises(Unauthenticated):
            await TokenVerifier(USERS, {}, AUDIENCE).verify(text)

    @pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"1", b"\xff", b"{" * 5000, b'{"a":' * 1000, b"[" * 5000])
    async def test_payload_that_is_no_json_object_is_refused(self, verifier: TokenVerifier, payload: bytes) -> None:
        with pytest.raises(Unauthenticated, match="it is malformed"):
            await verifier.verify(encode_parts({"alg": "EdDSA", "kid": kid(PRIVATE[USERS])}, payload))

    async def test_refusal_does_not_quote_the_token(self, verifier: TokenVerifier) -> None:
        with pytest.raises(Unauthenticated) as caught:
            await verifier.verify(token(sub="alice", aud="elsewhere"))
        assert "alice" not in str(caught.value)
        assert "elsewhere" not in str(caught.value)


class TestCache:
    async def test_cached_token_expires(self, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
        good = token(exp=int(time.time()) + 60)
        assert await verifier.verify(good) == await verifier.verify(good)
        monkeypatch.setattr(principal, "time", FrozenTime(time.time() + 120))
        with pytest.raises(Unauthenticated, match="has expired; get a new one"):
            await verifier.verify(good)

    async def test_refused_token_is_not_cached(self, verifier: TokenVerifier) -> None:
        forged = token(UNKNOWN_KEY, headers={"kid": kid(PRIVATE[USERS])})
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                await verifier.verify(forged)

    async def test_cache_is_bounded_and_drops_an_expired_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(principal, "_CACHED_TOKENS", 3)
        verifier = create_verifier()
        tokens = [token(sub=f"user-{number}") for number in range(5)]
        for each in tokens:
            await verifier.verify(each)
            await verifier.verify(tokens[0])  # used repeatedly, so it stays in the LRU cache
        assert set(verifier._cache) == {tokens[3], tokens[4], tokens[0]}
        monkeypatch.setattr(principal, "time", FrozenTime(time.time() + 700))
        with pytest.raises(Unauthenticated):
            await verifier.verify(tokens[0])
        assert set(verifier._cache) == {tokens[3], tokens[4]}


class TestVerificationWithoutWaiting:
    async def test_new_token_of_a_known_key_is_verified(self) -> None:
        verifier, new = create_verifier(), token()
        assert verifier.verify_now(new) == await verifier.verify(new) == verifier.verify_now(new)

    async def test_invalid_token_is_refused(self) -> None:
        for invalid in (token(UNKNOWN_KEY, headers={"kid": kid(PRIVATE[USERS])}), token(iss="elsewhere"), "a.b.c", ""):
            with pytest.raises(Unauthenticated, match="not valid"):
                create_verifier().verify_now(invalid)

    async def test_token_whose_key_must_be_read_has_no_result(self) -> None:
        reads = 0

        async def read() -> bytes:
            nonlocal reads
            reads += 1
            return build_key_set(public_jwk(PRIVATE[USERS].public_key())).encode()

        verifier = TokenVerifier(USERS, {USERS: KeySet(read, "", "EdDSA", 3_600)}, AUDIENCE)
        new = token()
        assert verifier.verify_now(new) is None
        assert reads == 0
        assert await verifier.verify(new) == verifier.verify_now(new)
        assert reads == 1


class FrozenTime:
    """Fixed time in place of the `time` module."""

    def __init__(self, now: float) -> None:
        self._now = now

    def time(self) -> float:
        return self._now


class TestSettings:
    async def test_keys_are_read_from_one_file_per_issuer(self, tmp_path: Path) -> None:
        files = {issuer: tmp_path / f"{number}.json" for number, issuer in enumerate(PRIVATE)}
        for issuer, file in files.items():
            file.write_text(json.dumps({"keys": [public_jwk(PRIVATE[issuer].public_key())]}))
        settings = AuthSettings(
            auth_issuer=USERS, auth_jwks=files[USERS], auth_services={CARD: files[CARD]}, auth_leeway_seconds=60
        )
        async with TokenVerifier.open(settings) as verifier:
            assert (await verifier.verify(token(exp=int(time.time()) - 30))).leeway_seconds == 60
            assert not (await verifier.verify(token())).is_service
            assert (await verifier.verify(token(PRIVATE[CARD], iss=CARD, sub=CARD))).is_service
            with pytest.raises(Unauthenticated, match="its issuer is not trusted"):
                await verifier.verify(token(PRIVATE[BANK], iss=BANK, sub=BANK))
            assert verifier.user_jwks == {"keys": [public_jwk(PRIVATE[USERS].public_key())]}

    def test_jwks_setting_may_be_a_url(self) -> None:
        address = AuthSettings(auth_issuer=USERS, auth_jwks="https://users.test/jwks.json").auth_jwks
        assert str(address) == "https://users.test/jwks.json"
        assert not isinstance(address, Path)

    async def test_file_without_keys_is_an_error_at_the_start(self, tmp_path: Path) -> None:
        file = tmp_path / "users.json"
        file.write_text('{"keys": []}')
        with pytest.raises(InvalidKeySetError, match="no key for EdDSA"):
            async with TokenVerifier.open(AuthSettings(auth_issuer=USERS, auth_jwks=file)):
                pass


class TestExternalIssuers:
    @pytest.mark.parametrize(
        ("path", "claims"),
        [
            ("groups", {"groups": ["Admin"]}),
            ("realm_access.roles", {"realm_access": {"roles": ["admin", "offline_access"]}}),
            ("https://wallet.test/roles", {"https://wallet.test/roles": ["admin"]}),
        ],
    )
    async def test_roles_are_read_from_the_configured_claim(self, path: str, claims: dict[str, Any]) -> None:
        keys = {USERS: KeySet.from_text(json.dumps({"keys": [public_jwk(PRIVATE[USERS].public_key())]}))}
        verifier = TokenVerifier(USERS, keys, AUDIENCE, roles_claim=path)
        assert (await verifier.verify(token(**claims))).roles == {Role.ADMIN}
        assert (await verifier.verify(token(roles=["admin"]))).roles == frozenset()
        assert (await verifier.verify(token(realm_access=["admin"]))).roles == frozenset()

    @pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
    async def test_only_the_configured_algorithm_is_accepted(self, algorithm: Algorithm) -> None:
        private = EXTERNAL_KEYS[algorithm]
        published = json.dumps({"keys": [build_jwk(private, "theirs"), public_jwk(PRIVATE[USERS].public_key())]})
        services = KeySet.from_text(json.dumps({"keys": [public_jwk(PRIVATE[CARD].public_key())]}))
        keys = {USERS: KeySet.from_text(published, algorithm), CARD: services}
        verifier = TokenVerifier(USERS, keys, AUDIENCE, algorithm=algorithm)
        now = int(time.time())
        claims = {"iss": USERS, "sub": "alice", "aud": AUDIENCE, "iat": now, "exp": now + 60}
        external_token = jwt.encode(claims, private, algorithm, headers={"kid": "theirs"})
        assert (await verifier.verify(external_token)).subject == "alice"
        assert (await verifier.verify(token(PRIVATE[CARD], iss=CARD, sub=CARD))).is_service
        with pytest.raises(Unauthenticated, match="names none of the keys"):
            await verifier.verify(token())


class TestKeyRotation:
    async def test_tokens_of_a_withdrawn_key_are_refused(self, tmp_path: Path) -> None:
        file, old, new = tmp_path / "users.json", PRIVATE[USERS], UNKNOWN_KEY
        file.write_text(json.dumps({"keys": [public_jwk(old.public_key())]}))
        async with KeySet.from_file(file) as keys:
            verifier = TokenVerifier(USERS, {USERS: keys}, AUDIENCE)
            by_old, by_new = token(), token(new, headers={"kid": kid(new)})
            file.write_text(json.dumps({"keys": [public_jwk(old.public_key()), public_jwk(new.public_key())]}))
            await keys.refresh()
            before = await verifier.verify(by_old)
            assert await verifier.verify(by_old) is before  # tokens stay cached after a reload with the same key
            file.write_text(json.dumps({"keys": [public_jwk(new.public_key())]}))
            await keys.refresh()
            assert (await verifier.verify(by_new)).subject == "alice"
            with pytest.raises(Unauthenticated, match="names none of the keys"):
                await verifier.verify(by_old)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters()),  # also NUL, control characters and lone surrogates
        st.sampled_from([10**400, 1e400, -1e400, "alice\x00", "\ud800", "x" * 300, "alice\n", "\u202ealice"]),
    ),
    lambda values: st.one_of(st.lists(values, max_size=3), st.dictionaries(st.text(), values, max_size=3)),
    max_leaves=5,
)
CLAIM_NAMES = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "roles")


class TestHostileTokens:
    """Tokens from an attacker: the users of an issuer can choose some claims of their tokens."""

    @given(name=st.sampled_from(CLAIM_NAMES), value=JSON)
    @example(name="sub", value="alice\x00")
    @example(name="exp", value=[])
    async def test_any_claim_gives_a_principal_or_unauthenticated(
        self, verifier: TokenVerifier, name: str, value: Any
    ) -> None:
        try:
            caller = await verifier.verify(token(**{name: value}))
        except Unauthenticated:
            return
        assert caller.subject.isprintable()
        assert 0 < len(caller.subject) <= 255
        assert caller.valid_until >= time.time()

    @given(header=st.dictionaries(st.sampled_from(("alg", "kid", "typ", "crit", "b64", "jwk", "x5c")), JSON))
    async def test_any_header_with_a_wrong_signature_is_refused(
        self, verifier: TokenVerifier, header: dict[str, Any]
    ) -> None:
        claims = json.dumps({"iss": USERS, "sub": "alice", "aud": AUDIENCE, "iat": 0, "exp": 2**40}).encode()
        with pytest.raises(Unauthenticated):
            await verifier.verify(encode_parts(header, claims, b"signature"))

    @pytest.mark.parametrize("extra", ["\x00", "\t", "\xe9", "\n", " ", "=", "%", "\u4e2d", "\ud800"])
    async def test_token_with_characters_outside_its_alphabet_is_refused(
        self, verifier: TokenVerifier, extra: str
    ) -> None:
        """Many base64 decoders skip such characters, and gRPC metadata cannot carry some of them."""
        parts = token().split(".")
        for index, part in enumerate(parts):
            changed = [*parts[:index], part[:-5] + extra + part[-5:], *parts[index + 1 :]]
            with pytest.raises(Unauthenticated):
                await verifier.verify(".".join(changed))

    async def test_longest_token_is_accepted_and_the_refusal_of_a_longer_one_names_the_limit(
        self, verifier: TokenVerifier
    ) -> None:
        base = len(token(pad=""))
        longest = token(pad="x" * ((principal.MAX_TOKEN_BYTES - base) * 3 // 4 - 4))
        assert principal.MAX_TOKEN_BYTES - 10 < len(longest) <= principal.MAX_TOKEN_BYTES
        assert (await verifier.verify(longest)).subject == "alice"
        with pytest.raises(TokenTooLong, match="8192 bytes"):
            await verifier.verify(token(pad="x" * principal.MAX_TOKEN_BYTES))
