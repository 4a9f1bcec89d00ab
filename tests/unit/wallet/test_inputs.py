import uuid
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet import cursor, inputs
from wallet.errors import FieldViolation, InvalidInput
from wallet.inputs import FieldParser, Secret
from wallet.money import Money

ACCOUNT = uuid.UUID("123e4567-e89b-12d3-a456-426614174000")


class TestFieldParser:
    def test_valid_fields_are_returned(self) -> None:
        with FieldParser() as fields:
            account = fields.parse("accountId", inputs.parse_uuid, str(ACCOUNT))
            amount = fields.parse_money("10.00", "RUB")
        assert (account, amount) == (ACCOUNT, Money(Decimal(10), "RUB"))

    def test_error_names_every_invalid_field(self) -> None:
        with pytest.raises(InvalidInput) as caught, FieldParser() as fields:  # noqa: PT012  the exit raises
            fields.parse("senderId", inputs.parse_uuid, "me")
            fields.parse("recipientId", inputs.parse_uuid, str(ACCOUNT))
            fields.parse("after", cursor.decode_version, "?")
            fields.parse_money("ten", "RUB")
        assert caught.value.violations == (
            FieldViolation("senderId", "must be a UUID"),
            FieldViolation("after", "must be a cursor from an earlier response"),
            FieldViolation("amount", "must be a decimal number such as 10.00"),
        )

    @pytest.mark.parametrize("sign", ["", "-"])
    def test_amount_too_large_for_a_message_is_rejected(self, sign: str) -> None:
        with FieldParser() as fields:
            assert fields.parse_money(f"{sign}{2**63 - 1}", "RUB").amount == Decimal(f"{sign}{2**63 - 1}")
        with pytest.raises(InvalidInput) as caught, FieldParser() as fields:
            fields.parse_money(f"{sign}{2**63}", "RUB")
        assert caught.value.violations == (FieldViolation("amount", "has too many digits"),)

    def test_unknown_currency_is_reported_for_the_currency_field(self) -> None:
        with pytest.raises(InvalidInput) as caught, FieldParser() as fields:
            fields.parse_money("10.00", "XXX")
        assert caught.value.violations == (FieldViolation("currency", "must be an ISO 4217 currency"),)

    def test_other_exception_in_the_block_is_not_replaced(self) -> None:
        with pytest.raises(ZeroDivisionError), FieldParser() as fields:  # noqa: PT012  the exit must not raise
            fields.parse("senderId", inputs.parse_uuid, "me")
            _ = 1 / 0

    def test_other_exception_of_a_parser_is_raised(self) -> None:
        def broken(_: str) -> None:
            raise KeyError("a defect")

        with pytest.raises(KeyError), FieldParser() as fields:
            fields.parse("senderId", broken, "me")


class TestParseUuid:
    @given(st.uuids())
    def test_canonical_uuid_is_parsed(self, value: uuid.UUID) -> None:
        assert inputs.parse_uuid(str(value)) == inputs.parse_uuid(str(value).upper()) == value

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "me",
            ACCOUNT.hex,
            f"{{{ACCOUNT}}}",
            f"urn:{ACCOUNT.hex}",
            ACCOUNT.urn,
            f" {ACCOUNT}",
            f"{ACCOUNT}\n",
            "123e4567e-89b-12d3-a456-426614174000",
            "123e4567-e89b-12d3-a456-42661417400",
            "123e4567-e89b-12d3-a456-42661417400g",
            "123e4567-e89b-12d3-a456-4266141_4000",
            "+23e4567-e89b-12d3-a456-426614174000",
            "123e4567-e89b-12d3-a456-42661417400\uff10",
        ],
    )
    def test_uuid_in_another_form_is_rejected(self, text: str) -> None:
        with pytest.raises(ValueError, match="must be a UUID"):
            inputs.parse_uuid(text)

    @given(st.text("0123456789abcdefABCDEF-{}_ +urn:", min_size=36, max_size=36))
    def test_parsed_uuid_equals_the_text_in_lower_case(self, text: str) -> None:
        try:
            value = inputs.parse_uuid(text)
        except ValueError:
            return
        assert str(value) == text.lower()


class TestParseDigits:
    @pytest.mark.parametrize("text", ["0", "4242424242424242"])
    def test_digits_are_returned_unchanged(self, text: str) -> None:
        assert inputs.parse_digits(text) == text

    @pytest.mark.parametrize("text", ["", "4242 4242", "-1", "1.0", "1e3", "\uff11", "\u00b2", "4242\ud800", "4242\n"])
    def test_text_with_other_characters_is_rejected_without_quoting_it(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^must contain only digits$"):
            inputs.parse_digits(text)


class TestSecret:
    def test_repr_and_str_hide_the_secret(self) -> None:
        assert "4242" not in f"{Secret('4242')} {Secret('4242')!r}"
