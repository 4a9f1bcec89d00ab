"""Refresh tokens: their encoding, and their rotation when they are used in any order."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from subgraphs.identity.service.domain.refresh_tokens import (
    RefreshToken,
    Replay,
    ReuseDetected,
    Rotated,
    RotationResult,
    Session,
    SessionEnded,
    decode_token,
    encode_token,
    rotate,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SECRET = b"a secret for tests"
GRACE = 10.0


class TestEncodedTokens:
    @given(st.uuids())
    def test_token_is_decoded_to_its_id(self, id_: uuid.UUID) -> None:
        token = encode_token(SECRET, id_)
        assert decode_token(SECRET, token) == id_
        assert len(token) == 66
        assert token.isascii()

    @given(st.uuids(), st.binary(min_size=1, max_size=32))
    def test_token_of_another_secret_is_invalid(self, id_: uuid.UUID, secret: bytes) -> None:
        assert decode_token(secret, encode_token(SECRET, id_)) is None

    @given(st.uuids(), st.integers(0, 65), st.characters(codec="utf-8"))
    def test_token_with_a_changed_character_is_invalid(self, id_: uuid.UUID, place: int, character: str) -> None:
        token = encode_token(SECRET, id_)
        forged = token[:place] + character + token[place + 1 :]
        assert (decode_token(SECRET, forged) == id_) == (forged == token)

    @given(st.text())
    def test_text_that_is_not_a_token_is_invalid(self, text: str) -> None:
        assert decode_token(SECRET, text) is None

    @pytest.mark.parametrize("appended", ["=", ".", "A", "\n", " ", "\ud800"])
    def test_token_with_an_appended_character_is_invalid(self, appended: str) -> None:
        assert decode_token(SECRET, encode_token(SECRET, uuid.UUID(int=1)) + appended) is None


def session(**changes: datetime) -> Session:
    return Session(uuid.UUID(int=1), uuid.UUID(int=2), **{"expires_at": NOW + timedelta(days=30), **changes})


class TestRotate:
    token = RefreshToken(uuid.UUID(int=3), uuid.UUID(int=1))
    successor = uuid.UUID(int=4)

    def use(self, token: RefreshToken, current: Session, seconds: float = 0) -> RotationResult:
        now = NOW + timedelta(seconds=seconds)
        return rotate(current, token, now, successor_id=uuid.UUID(int=99), grace_seconds=GRACE)

    @property
    def replaced(self) -> RefreshToken:
        return RefreshToken(self.token.id, self.token.session_id, self.successor, NOW)

    def test_first_use_creates_the_successor(self) -> None:
        result = self.use(self.token, session())
        assert isinstance(result, Rotated)
        assert (result.token.replaced_by, result.token.replaced_at) == (result.successor.id, NOW)
        assert result.successor == RefreshToken(uuid.UUID(int=99), self.token.session_id)

    @pytest.mark.parametrize("seconds", [-9.999, -1, 0, 9.999])
    def test_use_within_the_grace_period_is_a_replay(self, seconds: float) -> None:
        assert self.use(self.replaced, session(), seconds) == Replay(self.successor)

    @pytest.mark.parametrize("seconds", [10, 11, 86_400, -10, -86_400])
    def test_use_outside_of_the_grace_period_revokes_the_session(self, seconds: float) -> None:
        result = self.use(self.replaced, session(), seconds)
        assert isinstance(result, ReuseDetected)
        assert result.session.revoked_at == NOW + timedelta(seconds=seconds)

    @pytest.mark.parametrize("end", [{"expires_at": NOW}, {"revoked_at": NOW - timedelta(days=1)}], ids=str)
    def test_token_of_an_ended_session_is_refused(self, end: dict[str, datetime]) -> None:
        for token in (self.token, self.replaced):
            assert self.use(token, session(**end)) == SessionEnded()


class TestLifetime:
    lifetime = timedelta(days=30)

    def test_remaining_lifetime_is_bounded(self) -> None:
        far = session(expires_at=NOW + timedelta(days=365))
        assert far.bounded(NOW, self.lifetime) == session(expires_at=NOW + self.lifetime)

    @pytest.mark.parametrize("days", [-1, 0, 30])
    def test_earlier_expiry_is_kept(self, days: int) -> None:
        current = session(expires_at=NOW + timedelta(days=days))
        assert current.bounded(NOW, self.lifetime) == current


class Sessions(RuleBasedStateMachine):
    """One session: its tokens are used in any order at any time, and their invariants hold."""

    tokens = Bundle("tokens")

    @initialize(target=tokens)
    def begin(self) -> uuid.UUID:
        self.now = NOW
        self.session = session()
        first = RefreshToken(uuid.uuid4(), self.session.id)
        self.stored = {first.id: first}
        self.successors: dict[uuid.UUID, set[uuid.UUID]] = {}
        self.ended_at: datetime | None = None
        return first.id

    @rule(seconds=st.one_of(st.sampled_from([0.0, 9.999, 10.0]), st.floats(0, 60), st.floats(0, 40 * 86_400)))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(target=tokens, id_=tokens)
    def use(self, id_: uuid.UUID) -> uuid.UUID:
        before = self.stored[id_]
        result = rotate(self.session, before, self.now, successor_id=uuid.uuid4(), grace_seconds=GRACE)
        if self.ended_at is not None or self.now >= self.session.expires_at:
            assert result == SessionEnded()
        match result:
            case Rotated(token, successor):
                assert before.replaced_by is None
                self.stored |= {token.id: token, successor.id: successor}
                self.successors.setdefault(id_, set()).add(successor.id)
                return successor.id
            case Replay(successor_id):
                assert before.replaced_at is not None
                assert self.now < before.replaced_at + timedelta(seconds=GRACE)
                self.successors[id_].add(successor_id)
                return successor_id
            case ReuseDetected(revoked):
                assert before.replaced_at is not None
                assert self.now >= before.replaced_at + timedelta(seconds=GRACE)
                self.session, self.ended_at = revoked, self.now
        return id_

    @rule()
    def log_out(self) -> None:
        self.ended_at = self.ended_at or self.now
        self.session = Session(self.session.id, self.session.user_id, self.session.expires_at, self.ended_at)

    @invariant()
    def each_token_has_one_successor(self) -> None:
        for id_, successors in getattr(self, "successors", {}).items():
            assert successors == {self.stored[id_].replaced_by}

    @invariant()
    def at_most_one_token_is_unused(self) -> None:
        assert sum(token.replaced_by is None for token in getattr(self, "stored", {}).values()) <= 1


TestSessions = Sessions.TestCase
