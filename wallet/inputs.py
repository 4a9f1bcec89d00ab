"""Reading values from text that people and programs send, with every field that is wrong named."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Final, Self, TypeVar
from uuid import UUID

from wallet.errors import FieldViolation, InvalidInput
from wallet.money import EXPONENTS, Money, MoneyError

Value = TypeVar("Value")

_MAX_KEY_LENGTH: Final = 255
_MAX_AMOUNT: Final = Decimal(2**63 - 1)
"""What messages can hold. What is allowed is less, and said by whoever allows it."""


def parse_uuid(text: str) -> UUID:
    """A UUID in its canonical form, with hyphens.

    Raises:
        ValueError: it is not one.
    """
    try:
        value = UUID(text)
    except ValueError:
        raise ValueError("must be a UUID") from None
    if str(value) != text.lower():
        raise ValueError("must be a UUID")
    return value


@dataclass(frozen=True, slots=True)
class Secret:
    """Text that is read once and shown nowhere, not by its `repr` either."""

    text: str = field(repr=False)


def parse_digits(text: str) -> str:
    """A text of decimal digits alone.

    Raises:
        ValueError: it is not one; does not repeat it.
    """
    if not (text.isascii() and text.isdigit()):
        raise ValueError("must be digits alone")
    return text


def idempotency_key_violations(key: str) -> list[FieldViolation]:
    """What is wrong with an idempotency key."""
    if 1 <= len(key) <= _MAX_KEY_LENGTH and key.isascii() and key.isprintable() and key == key.strip():
        return []
    return [FieldViolation("idempotencyKey", f"must be 1 to {_MAX_KEY_LENGTH} printable ASCII characters")]


class FieldParser:
    """Collects what is wrong with the fields of one input. Use it as a context manager: leaving it raises InvalidInput
    with all of it, so that past its end every value that was read is good.
    """

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def parse(self, field: str, parse: Callable[[str], Value], text: str) -> Value:
        """What `parse` makes of the text, noting the message of the ValueError that it raises."""
        try:
            return parse(text)
        except ValueError as error:
            self._violations.append(FieldViolation(field, str(error)))
            return None  # type: ignore[return-value]  # never seen: leaving the context raises

    def parse_money(self, amount: str, currency: str) -> Money:
        """The money in the fields `amount` and `currency`."""
        if currency not in EXPONENTS:
            self._violations.append(FieldViolation("currency", "must be an ISO 4217 currency"))
            return None  # type: ignore[return-value]  # never seen: leaving the context raises
        return self.parse("amount", lambda text: _money(text, currency), amount)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._violations:
            raise InvalidInput(tuple(self._violations))


def _money(text: str, currency: str) -> Money:
    money = Money.parse(text, currency)
    if abs(money.amount) > _MAX_AMOUNT:
        raise MoneyError("has too many digits")
    return money
