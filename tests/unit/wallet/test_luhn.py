from hypothesis import given
from hypothesis import strategies as st

from wallet.luhn import has_valid_check_digit


def with_check_digit(digits: str) -> str:
    return next(digits + last for last in "0123456789" if has_valid_check_digit(digits + last))


@given(st.text("0123456789", min_size=11, max_size=18))
def test_number_has_exactly_one_check_digit(digits: str) -> None:
    assert [has_valid_check_digit(digits + last) for last in "0123456789"].count(True) == 1


@given(st.text("0123456789", min_size=11, max_size=18), st.data())
def test_one_wrong_digit_is_detected(digits: str, data: st.DataObject) -> None:
    number = with_check_digit(digits)
    place = data.draw(st.integers(0, len(number) - 1))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[place]]))
    assert not has_valid_check_digit(number[:place] + other + number[place + 1 :])
