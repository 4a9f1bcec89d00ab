"""Parsing of request fields, with an error that names every invalid field."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Final, Self, TypeVar
from uuid import UUID

from wallet.errors import FieldViolation, InvalidInput
from wallet.money import EXPONENTS, Money, MoneyError

Source = TypeVar("Source")
Value = TypeVar("Value")

MAX_KEY_LENGTH: Final = 255
"""Maximum length of an idempotency key."""
_MAX_RAW_KEY_LENGTH: Final = 2 * MAX_KEY_LENGTH + 2
"""Maximum length of the raw form of a key: quotation marks around the key, and a backslash before each character."""
IDEMPOTENCY_KEY_RULE: Final = f"must be 1 to {MAX_KEY_LENGTH} printable ASCII characters"
_RAW_KEY_RULE: Final = f"must be 1 to {_MAX_RAW_KEY_LENGTH} printable ASCII characters"
_MAX_AMOUNT: Final = Decimal(2**63 - 1)
"""Largest amount that a message can contain. The services accept only lower amounts."""


def parse_uuid(text: str) -> UUID:
    """Parse a UUID in its canonical form, with hyphens.

    Raises:
        ValueError: the text has another form.
    """
    try:
        value = UUID(text)
    except ValueError:
        raise ValueError("must be a UUID") from None
    if str(value) != text.lower():
        raise ValueError("must be a UUID")
    return value


def require_offset(field: str, time: datetime) -> datetime:
    """Return the time if it has an offset from UTC.

    Raises:
        InvalidInput: it has none.
    """
    if time.tzinfo is None:
        raise InvalidInput.for_field(field, "must have an offset from UTC, such as Z")
    return time


@dataclass(frozen=True, slots=True)
class Secret:
    """Text that must not be logged or returned. `repr` hides it."""

    text: str = field(repr=False)


def parse_digits(text: str) -> str:
    """Return the text if it consists of ASCII digits only.

    Raises:
        ValueError: the text is empty or has other characters. The message does not quote the text.
    """
    if not (text.isascii() and text.isdigit()):
        raise ValueError("must contain only digits")
    return text


def is_idempotency_key(text: str) -> bool:
    """Return whether the text can be an idempotency key; `IDEMPOTENCY_KEY_RULE` states the rule."""
    return _is_printable_ascii(text, MAX_KEY_LENGTH)


def idempotency_key_violations(key: str, raw_key: str | None = None) -> list[FieldViolation]:
    """Return the violations of an idempotency key, and of its raw form if the request has one.

    The raw form is the value as the client sent it, for example with quotation marks. Earlier releases stored it.
    """
    violations = [] if is_idempotency_key(key) else [FieldViolation("idempotencyKey", IDEMPOTENCY_KEY_RULE)]
    if raw_key is not None and not _is_printable_ascii(raw_key, _MAX_RAW_KEY_LENGTH):
        violations.append(FieldViolation("rawIdempotencyKey", _RAW_KEY_RULE))
    return violations


def _is_printable_ascii(text: str, max_length: int) -> bool:
    return 1 <= len(text) <= max_length and text.isascii() and text.isprintable()


class FieldParser:
    """Parses the fields of one request and collects the violations.

    Use it as a context manager. Its exit raises InvalidInput with all violations, so code after the block has only
    valid values.
    """

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def parse(self, field: str, parse: Callable[[Source], Value], source: Source) -> Value:
        """Parse one field; a ValueError of `parse` becomes a violation with the same message."""
        try:
            return parse(source)
        except ValueError as error:
            self._violations.append(FieldViolation(field, str(error)))
            return None  # type: ignore[return-value]  # never used: the exit of the context raises

    def parse_money(self, amount: str, currency: str, field: str = "amount") -> Money:
        """Parse the fields `amount` and `currency`; `field` is another name of the field `amount`."""
        if currency not in EXPONENTS:
            self._violations.append(FieldViolation("currency", "must be an ISO 4217 currency"))
            return None  # type: ignore[return-value]  # never used: the exit of the context raises
        return self.parse(field, lambda text: _money(text, currency), amount)

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
