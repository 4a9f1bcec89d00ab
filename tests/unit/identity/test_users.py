"""Rules of user names and passwords."""

import pytest

from subgraphs.identity.service.domain.users import check_credentials, check_new_credentials, normalize_password


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
