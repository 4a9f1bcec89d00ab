"""What may become of attempts and of refresh tokens, for every order of events."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from subgraphs.identity.service.domain.lockout import LockoutPolicy, LoginAttempts
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
from subgraphs.identity.service.domain.users import check_credentials, check_new_credentials, normalize_password

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SECRET = b"known to the tests, and to nobody else"
GRACE = 10.0


class TestCredentials:
    @pytest.mark.parametrize("username", ["bob", "a.b-c_9", "a" * 64])
    def test_short_lower_case_name_is_accepted(self, username: str) -> None:
        assert check_new_credentials(username, "correct horse battery") == []

    @pytest.mark.parametrize("username", ["", "ab", "Alice", "9lives", "a b c", "алиса", "a" * 65, "alice\n", "alice'"])
    def test_other_name_is_refused(self, username: str) -> None:
        assert [each.field for each in check_new_credentials(username, "correct horse battery")] == ["username"]

    @pytest.mark.parametrize("password", ["x" * 12, "x" * 128, "пароль пароль", "🦄" * 12, " " * 12])
    def test_password_of_allowed_length_is_accepted(self, password: str) -> None:
        assert check_new_credentials("alice", password) == []

    @pytest.mark.parametrize("password", ["", "x" * 11, "x" * 129])
    def test_password_of_another_length_is_refused_and_not_quoted(self, password: str) -> None:
        (violation,) = check_credentials("alice", password)
        assert (violation.field, violation.message) == ("password", "must be 12 to 128 characters")

    def test_user_name_as_password_is_refused(self) -> None:
        (violation,) = check_new_credentials("alice-the-first", "Alice-The-First")
        assert (violation.field, violation.message) == ("password", "must not be the name")

    def test_password_is_normalized(self) -> None:
        assert normalize_password("cafe\u0301 cafe\u0301 cafe\u0301") == normalize_password(
            "caf\u00e9 caf\u00e9 caf\u00e9"
        )


class TestLockout:
    def test_lock_starts_with_the_fifth_attempt_and_doubles_up_to_15_minutes(self) -> None:
        lockout = LockoutPolicy()
        assert [lockout.lock_seconds(count) for count in range(1, 9)] == [0, 0, 0, 0, 1, 2, 4, 8]
        assert lockout.lock_seconds(15) == 900
        assert lockout.lock_seconds(10**9) == 900

    @given(st.lists(st.floats(0, 2000), max_size=60), st.integers(1, 8))
    def test_lockout_lets_attempts_pass_only_after_the_lock(self, waits: list[float], free: int) -> None:
        lockout = LockoutPolicy(free, 1.0, 900.0)
        now, attempts, passed = NOW, LoginAttempts(0, NOW), 0
        for wait in waits:
            now += timedelta(seconds=wait)
            more = attempts.add_attempt(now, lockout)
            if more is None:
                assert now < attempts.locked_until <= now + timedelta(seconds=900)
                assert 1 <= attempts.seconds_left(now) <= 900
                continue
            passed += 1
            assert more.count == passed
            assert more.locked_until == now + timedelta(seconds=lockout.lock_seconds(passed))
            attempts = more
        assert passed >= min(free, len(waits))

    def test_remaining_lock_time_is_rounded_up(self) -> None:
        locked = LoginAttempts(5, NOW + timedelta(seconds=1.2))
        assert locked.seconds_left(NOW) == 2
        assert locked.seconds_left(NOW + timedelta(seconds=1.1999)) == 1


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
    def test_other_text_is_no_token(self, text: str) -> None:
        assert decode_token(SECRET, text) is None

    @pytest.mark.parametrize("more", ["=", ".", "A", "\n", " ", "\ud800"])
    def test_token_has_one_spelling(self, more: str) -> None:
        assert decode_token(SECRET, encode_token(SECRET, uuid.UUID(int=1)) + more) is None


def sign_in(**given: datetime) -> Session:
    return Session(uuid.UUID(int=1), uuid.UUID(int=2), **{"expires_at": NOW + timedelta(days=30), **given})


class TestRotate:
    token = RefreshToken(uuid.UUID(int=3), uuid.UUID(int=1))
    successor = uuid.UUID(int=4)

    def use(self, token: RefreshToken, at: Session, seconds: float = 0) -> RotationResult:
        now = NOW + timedelta(seconds=seconds)
        return rotate(at, token, now, successor_id=uuid.UUID(int=99), grace_seconds=GRACE)

    @property
    def replaced(self) -> RefreshToken:
        return RefreshToken(self.token.id, self.token.session_id, self.successor, NOW)

    def test_first_use_creates_the_successor(self) -> None:
        use = self.use(self.token, sign_in())
        assert isinstance(use, Rotated)
        assert (use.token.replaced_by, use.token.replaced_at) == (use.successor.id, NOW)
        assert use.successor == RefreshToken(uuid.UUID(int=99), self.token.session_id)

    @pytest.mark.parametrize("seconds", [-1, 0, 9.999])
    def test_use_within_the_grace_period_is_a_replay(self, seconds: float) -> None:
        assert self.use(self.replaced, sign_in(), seconds) == Replay(self.successor)

    @pytest.mark.parametrize("seconds", [10, 11, 86_400])
    def test_use_after_the_grace_period_revokes_the_session(self, seconds: float) -> None:
        use = self.use(self.replaced, sign_in(), seconds)
        assert isinstance(use, ReuseDetected)
        assert use.session.revoked_at == NOW + timedelta(seconds=seconds)

    @pytest.mark.parametrize("over", [{"expires_at": NOW}, {"revoked_at": NOW - timedelta(days=1)}], ids=str)
    def test_token_of_an_ended_session_is_refused(self, over: dict[str, datetime]) -> None:
        for token in (self.token, self.replaced):
            assert self.use(token, sign_in(**over)) == SessionEnded()


class Sessions(RuleBasedStateMachine):
    """One sign-in whose tokens are used by whoever has them, in any order, at any time; and what must hold of it."""

    tokens = Bundle("tokens")

    @initialize(target=tokens)
    def begin(self) -> uuid.UUID:
        self.now = NOW
        self.sign_in = sign_in()
        first = RefreshToken(uuid.uuid4(), self.sign_in.id)
        self.kept = {first.id: first}
        self.answers: dict[uuid.UUID, set[uuid.UUID]] = {}
        self.ended_at: datetime | None = None
        return first.id

    @rule(seconds=st.one_of(st.sampled_from([0.0, 9.999, 10.0]), st.floats(0, 60), st.floats(0, 40 * 86_400)))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(target=tokens, id_=tokens)
    def use(self, id_: uuid.UUID) -> uuid.UUID:
        before = self.kept[id_]
        use = rotate(self.sign_in, before, self.now, successor_id=uuid.uuid4(), grace_seconds=GRACE)
        if self.ended_at is not None or self.now >= self.sign_in.expires_at:
            assert use == SessionEnded()
        match use:
            case Rotated(token, successor):
                assert before.replaced_by is None
                self.kept |= {token.id: token, successor.id: successor}
                self.answers.setdefault(id_, set()).add(successor.id)
                return successor.id
            case Replay(successor_id):
                assert before.replaced_at is not None
                assert self.now < before.replaced_at + timedelta(seconds=GRACE)
                self.answers[id_].add(successor_id)
                return successor_id
            case ReuseDetected(ended):
                assert before.replaced_at is not None
                assert self.now >= before.replaced_at + timedelta(seconds=GRACE)
                self.sign_in, self.ended_at = ended, self.now
        return id_

    @rule()
    def sign_out(self) -> None:
        self.ended_at = self.ended_at or self.now
        self.sign_in = Session(self.sign_in.id, self.sign_in.user_id, self.sign_in.expires_at, self.ended_at)

    @invariant()
    def a_token_has_one_successor_for_ever(self) -> None:
        for id_, successors in getattr(self, "answers", {}).items():
            assert successors == {self.kept[id_].replaced_by}

    @invariant()
    def at_most_one_token_is_unused(self) -> None:
        assert sum(token.replaced_by is None for token in getattr(self, "kept", {}).values()) <= 1


TestSessions = Sessions.TestCase
