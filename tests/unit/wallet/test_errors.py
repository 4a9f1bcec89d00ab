from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.rpc.status import error_from_status, error_to_status
from wallet.errors import (
    ERRORS_BY_REASON,
    AccountNotFound,
    FieldViolation,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidInput,
    PermissionDenied,
    Unavailable,
    WalletError,
)

every_error = pytest.mark.parametrize("cls", ERRORS_BY_REASON.values(), ids=ERRORS_BY_REASON)


def example(cls: type[WalletError], filling: str = "some") -> WalletError:
    """An error of the class with a different text in each field."""
    if issubclass(cls, InvalidInput):
        return InvalidInput((FieldViolation(f"{filling}Field", "is wrong"), FieldViolation("other", "is wrong too")))
    return cls(**{field.name: f"{filling} {field.name}" for field in fields(cls)})


class TestEveryError:
    @every_error
    def test_survives_the_wire(self, cls: type[WalletError]) -> None:
        error = example(cls)
        returned = error_from_status(error_to_status(error))
        assert type(returned) is cls
        assert returned == error
        assert returned.message == error.message

    @every_error
    def test_travels_as_its_own_status_with_its_message(self, cls: type[WalletError]) -> None:
        status = error_to_status(example(cls))
        assert (status.code, status.message) == (cls.code.value, example(cls).message)

    @pytest.mark.parametrize("cls", [cls for cls in ERRORS_BY_REASON.values() if cls is not InvalidInput])
    def test_is_made_again_from_its_metadata(self, cls: type[WalletError]) -> None:
        assert cls.from_metadata(example(cls).metadata()) == example(cls)

    @every_error
    def test_has_a_message_for_people_whatever_it_holds(self, cls: type[WalletError]) -> None:
        assert str(example(cls, "{0} {unknown} %s")) == example(cls, "{0} {unknown} %s").message != ""

    @every_error
    def test_tolerates_data_that_an_older_version_did_not_send(self, cls: type[WalletError]) -> None:
        assert isinstance(cls.from_metadata({}), cls)

    @every_error
    def test_can_be_raised_and_told_apart(self, cls: type[WalletError]) -> None:
        with pytest.raises(cls) as caught:
            raise example(cls)
        assert caught.value.reason == cls.reason

    def test_reasons_are_unique(self) -> None:
        assert len(ERRORS_BY_REASON) == len(WalletError.__subclasses__())


class TestMessages:
    def test_insufficient_funds_says_what_is_there_and_what_is_needed(self) -> None:
        error = InsufficientFunds("id", needed="10.00", available="2.50", currency="RUB")
        assert str(error) == "the account holds 2.50 RUB, 10.00 are needed"

    def test_invalid_input_names_each_field(self) -> None:
        error = InvalidInput(
            (FieldViolation("amount", "must be positive"), FieldViolation("senderId", "must be a UUID"))
        )
        assert str(error) == "amount: must be positive; senderId: must be a UUID"
        assert InvalidInput.for_field("amount", "must be positive").violations == error.violations[:1]

    def test_a_conflict_asks_for_a_new_key(self) -> None:
        assert str(IdempotencyConflict("k")) == "the idempotency key 'k' was used with another request; use a new key"

    def test_an_unknown_outcome_asks_for_the_same_key(self) -> None:
        assert "try again with the same idempotency key" in str(Unavailable("the bank"))

    def test_errors_with_defaults_need_no_words(self) -> None:
        assert str(PermissionDenied()) == "this caller may not do that"


class TestInvalidInput:
    def test_is_made_of_a_field_and_a_message_each(self) -> None:
        assert InvalidInput.from_metadata({"amount": "must be positive"}) == InvalidInput.for_field(
            "amount", "must be positive"
        )


@given(st.text(), st.text())
def test_any_text_survives_the_wire(account_id: str, key: str) -> None:
    for error in (AccountNotFound(account_id), IdempotencyConflict(key), InvalidInput.for_field(account_id, key)):
        assert error_from_status(error_to_status(error)) == error
