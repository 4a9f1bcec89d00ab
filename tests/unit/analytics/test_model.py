from decimal import Decimal

import pytest

from subgraphs.analytics.service.domain.model import parse_amount


class TestParseAmount:
    @pytest.mark.parametrize("text", ["0", "10", "10.00", "0.0001", "9" * 18])
    def test_plain_decimal_is_parsed(self, text: str) -> None:
        assert parse_amount(text) == Decimal(text)

    @pytest.mark.parametrize("text", ["", ".", ".5", "-1", "+1", "1e3", "1,5", "1.2.3", "NaN", " 1", "\u0661"])
    def test_text_that_is_no_plain_decimal_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="must be a decimal number"):
            parse_amount(text)

    @pytest.mark.parametrize("text", ["9" * 19, "0.00001"])
    def test_amount_with_too_many_digits_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="at most 18 digits and 4 decimals"):
            parse_amount(text)
