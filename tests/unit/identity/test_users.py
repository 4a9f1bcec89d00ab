"""Rules of user names and passwords."""

import string
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from subgraphs.identity.service.domain.users import (
    Credentials,
    Role,
    User,
    check_credentials,
    check_new_credentials,
    check_new_password,
    check_password_change,
    fold_username,
    normalize_password,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class TestCredentials:
    @pytest.mark.parametrize("username", ["bob", "a.b-c_9", "a" * 64, "Alice", "MCKINLEY"])
    def test_short_ascii_name_is_accepted(self, username: str) -> None:
        assert check_new_credentials(username, "correct horse battery") == []

    @pytest.mark.parametrize(
        "username", ["", "ab", "9lives", "\u212aelvin", "al\u0131ce", "a b c", "алиса", "a" * 65, "alice\n", "alice'"]
    )
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

    def test_too_long_text_is_not_normalized(self) -> None:
        assert normalize_password("\uff51" * 512) == "q" * 512
        assert normalize_password("\uff51" * 1_000) == "\uff51" * 1_000

    def test_longest_text_that_can_be_a_password_is_normalized(self) -> None:
        text = "\u03b1\u0313\u0300\u0345" * 128  # four characters that combine into one
        assert len(normalize_password(text)) == 128

    @pytest.mark.parametrize("password", ["qwerty123456", "QWERTY123456", " qwertyuiop ", "\uff51werty123456"])
    def test_common_password_is_refused_in_every_case_and_not_quoted(self, password: str) -> None:
        (violation,) = check_new_credentials("alice", password)
        assert (violation.field, violation.message) == (
            "password",
            "is one of the most common passwords; choose another one",
        )

    def test_login_with_a_common_password_is_accepted(self) -> None:
        assert check_credentials("alice", "qwerty123456") == []


class TestPasswordChange:
    @pytest.mark.parametrize(
        ("current", "new", "fields"),
        [
            ("correct horse", "staple battery", []),
            ("correct horse", "correct horse", ["newPassword"]),
            ("short", "short", ["currentPassword", "newPassword", "newPassword"]),
            ("correct horse", "x" * 11, ["newPassword"]),
            ("correct horse", "x" * 129, ["newPassword"]),
        ],
    )
    def test_equal_short_and_long_passwords_are_refused(self, current: str, new: str, fields: list[str]) -> None:
        assert [each.field for each in check_password_change(current, new)] == fields

    @pytest.mark.parametrize("new", ["alice-the-first", "ALICE-the-first", "Qwerty123456"])
    def test_name_and_common_password_are_refused_as_new_password(self, new: str) -> None:
        (violation,) = check_new_password("Alice-the-First", new)
        assert violation.field == "newPassword"
        assert new not in violation.message

    def test_registration_is_not_a_recent_change(self) -> None:
        user = User(UUID(int=1), "alice", Role.CUSTOMER, NOW)
        assert not Credentials(user, "hash", NOW, NOW + timedelta(seconds=1)).has_changed_within(600)

    def test_change_is_recent_for_the_given_time(self) -> None:
        changed_at = NOW + timedelta(days=1)
        user = User(UUID(int=1), "alice", Role.CUSTOMER, NOW)
        recent = [
            Credentials(user, "hash", changed_at, changed_at + timedelta(seconds=seconds)).has_changed_within(600)
            for seconds in (0, 599, 600)
        ]
        assert recent == [True, True, False]

    def test_dates_in_the_future_do_not_extend_the_time_of_a_change(self) -> None:
        future = NOW + timedelta(days=365)
        user = User(UUID(int=1), "alice", Role.CUSTOMER, NOW)
        assert not Credentials(user, "hash", future, NOW).has_changed_within(600)
        registered = User(UUID(int=1), "alice", Role.CUSTOMER, future)
        assert not Credentials(registered, "hash", future, NOW).has_changed_within(600)
        assert Credentials(registered, "hash", NOW, NOW).has_changed_within(600)

    def test_repr_of_credentials_has_no_hash(self) -> None:
        user = User(UUID(int=1), "alice", Role.CUSTOMER, NOW)
        assert "$argon2id" not in repr(Credentials(user, "$argon2id", NOW, NOW))


def test_only_ascii_letters_are_folded() -> None:
    assert fold_username(string.ascii_uppercase) == string.ascii_lowercase
    assert fold_username("\u0130\u212a\u00c4") == "\u0130\u212a\u00c4"
