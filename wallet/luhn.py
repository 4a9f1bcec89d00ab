"""Luhn's check digit of card numbers (ISO/IEC 7812-1, annex B)."""


def has_valid_check_digit(digits: str) -> bool:
    """Return whether the last digit is the check digit of the other digits.

    Args:
        digits: ASCII digits only.
    """
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0
