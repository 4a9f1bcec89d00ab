from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.rpc.status import error_from_status, error_to_status
from wallet.errors import (
    ERRORS_BY_REASON,
    TRY_AGAIN_WITH_KEY,
    AccountNotFound,
    FieldViolation,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidInput,
    PermissionDenied,
    Unavailable,
    UserNotFound,
    WalletError,
)

every_error = pytest.mark.parametrize("cls", ERRORS_BY_REASON.values(), ids=ERRORS_BY_REASON)


def example(cls: type[WalletError], prefix: str = "some") -> WalletError:
    """Build an error of the class with a different text in each field."""
    if issubclass(cls, InvalidInput):
        return InvalidInput((FieldViolation(f"{prefix}Field", "is wrong"), FieldViolation("other", "is wrong too")))
    return cls(**{field.name: f"{prefix} {field.name}" for field in fields(cls)})


class TestEveryError:
    @every_error
    def test_error_is_unchanged_after_conversion_to_a_grpc_status_and_back(self, cls: type[WalletError]) -> None:
        error = example(cls)
        returned = error_from_status(error_to_status(error))
        assert type(returned) is cls
        assert returned == error
        assert returned.message == error.message

    @every_error
    def test_grpc_status_has_the_code_and_message_of_the_error(self, cls: type[WalletError]) -> None:
        status = error_to_status(example(cls))
        message = example(cls).message.replace("someField", "some_field")  # fields have the names of the protos
        assert (status.code, status.message) == (cls.code.value, message)

    @pytest.mark.parametrize("cls", [cls for cls in ERRORS_BY_REASON.values() if cls is not InvalidInput])
    def test_error_is_rebuilt_from_its_metadata(self, cls: type[WalletError]) -> None:
        assert cls.from_metadata(example(cls).metadata()) == example(cls)

    @every_error
    def test_message_is_formatted_with_any_field_values(self, cls: type[WalletError]) -> None:
        assert str(example(cls, "{0} {unknown} %s")) == example(cls, "{0} {unknown} %s").message != ""

    @every_error
    def test_error_without_metadata_is_rebuilt(self, cls: type[WalletError]) -> None:
        assert isinstance(cls.from_metadata({}), cls)

    @every_error
    def test_error_is_caught_by_its_class(self, cls: type[WalletError]) -> None:
        with pytest.raises(cls) as caught:
            raise example(cls)
        assert caught.value.reason == cls.reason

    def test_reason_of_each_error_is_unique(self) -> None:
        assert len(ERRORS_BY_REASON) == len(WalletError.__subclasses__())


class TestMessages:
    def test_message_of_an_unknown_user_does_not_quote_the_id(self) -> None:
        assert str(UserNotFound("<b>x</b>")) == str(UserNotFound("")) == "the user was not found"

    def test_message_of_insufficient_funds_has_both_amounts(self) -> None:
        error = InsufficientFunds("id", needed="10.00", available="2.50", currency="RUB")
        assert str(error) == "the account has 2.50 RUB, but the transfer needs 10.00 RUB"

    def test_message_of_invalid_input_names_each_field(self) -> None:
        error = InvalidInput(
            (FieldViolation("amount", "must be positive"), FieldViolation("senderId", "must be a UUID"))
        )
        assert str(error) == "amount: must be positive; senderId: must be a UUID"
        assert InvalidInput.for_field("amount", "must be positive").violations == error.violations[:1]

    def test_message_of_an_idempotency_conflict_asks_for_a_new_key(self) -> None:
        assert str(IdempotencyConflict("k")) == "this idempotency key was used with another request; use a new key"

    def test_message_of_an_unknown_outcome_asks_for_the_same_key(self) -> None:
        assert str(Unavailable("the bank")) == "the bank is not available now; try again"
        assert str(Unavailable("the bank", TRY_AGAIN_WITH_KEY)).endswith("; try again with the same idempotency key")

    def test_permission_denied_has_a_default_message(self) -> None:
        assert str(PermissionDenied()) == "the caller is not allowed to make this call"


class TestInvalidInput:
    def test_invalid_input_is_built_from_fields_and_messages(self) -> None:
        assert InvalidInput.from_metadata({"amount": "must be positive"}) == InvalidInput.for_field(
            "amount", "must be positive"
        )


@given(st.text(), st.text(), st.from_regex(r"[a-z][a-z0-9]{0,5}([A-Z][a-z]{1,5}){0,3}", fullmatch=True))
def test_any_text_is_unchanged_after_conversion_to_a_grpc_status_and_back(text: str, key: str, field: str) -> None:
    for error in (AccountNotFound(text), IdempotencyConflict(key), InvalidInput.for_field(field, text)):
        assert error_from_status(error_to_status(error)) == error
