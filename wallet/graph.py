"""GraphQL types shared by all subgraphs: money, account references, pages, secrets, and errors as data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final

import strawberry
from graphql import GraphQLError
from strawberry import UNSET
from strawberry.federation.schema_directives import Cost, ListSize
from strawberry.schema.types.base_scalars import DateTimeDefinition
from strawberry.types.field import StrawberryField

from wallet import errors, money, paging
from wallet.inputs import Secret


@strawberry.federation.type(shareable=True, description="An exact amount in one currency.")
class Money:
    amount: str = strawberry.field(description="A decimal number with the number of decimals of the currency.")
    currency: str = strawberry.field(description="ISO 4217 code.")

    @classmethod
    def from_money(cls, value: money.Money) -> "Money":
        """Convert money to its GraphQL type."""
        return cls(amount=str(value), currency=value.currency)


@strawberry.federation.type(
    shareable=True,
    description="An account by its id only; the balance of a counterparty is private.",
)
class AccountRef:
    id: strawberry.ID


@strawberry.federation.type(
    shareable=True, description="Position of a page in its connection, as in the Relay specification."
)
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None

    @classmethod
    def from_cursors(cls, cursors: Sequence[str], *, has_older: bool, has_newer: bool) -> "PageInfo":
        """Build the page info of these cursors. Lists are newest first: the next page has older items."""
        return cls(
            has_next_page=has_older,
            has_previous_page=has_newer,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        )


def cost_directive(weight: int) -> Cost:
    """Return the `@cost` directive of a field.

    Args:
        weight: cost of the field's resolver, in units of about 3 µs. Without the directive, a resolver costs 10.
    """
    return Cost(weight=weight)


PAGE_COST: Final = 500
"""`@cost` of a field that reads a page: one call of a service, which queries its database.

A page of one row takes up to 7 ms of processor time, summed over all services. With this cost, the limit of GraphQL
cost admits as many pages in GraphQL as the limit of requests admits in REST.
"""

IDEMPOTENCY_KEY: Final = (
    "Chosen by the caller, one for each intended effect: 1 to 255 printable ASCII characters. As in the REST header "
    "`Idempotency-Key`, spaces around the value are no part of it, and the text may be quoted: "
    r'`"k1"` and `k1` are one key, and `\"` and `\\` in the quotation marks mean `"` and `\`.'
)
"""Description of the field `idempotencyKey` of each input."""

MUTATION_COST: Final = 100
"""`@cost` of a mutation: one call of a service, which writes to its database."""


BATCH_ITEM_COST: Final = 15
"""`@cost` of one item of a mutation with a list: its part of the call. The limit of requests counts it as a request."""

DESCRIPTION_COST: Final = 7
"""`@cost` of a transfer's description: up to 560 bytes."""

METADATA_COST: Final = 40
"""`@cost` of a transfer's metadata: up to 3 KiB, or three times as much with characters beyond ASCII."""


def list_size_directive(assumed: int) -> ListSize:
    """Return the `@listSize` directive of a list with at most `assumed` items."""
    return ListSize(
        assumed_size=assumed,
        slicing_arguments=UNSET,
        sized_fields=UNSET,
        require_one_slicing_argument=UNSET,
    )


PAGED: Final = ListSize(
    assumed_size=paging.DEFAULT_PAGE,
    slicing_arguments=["first", "last"],
    sized_fields=["edges"],
    require_one_slicing_argument=False,
)
"""`@listSize` directive of a connection that pages in both directions: `paging.parse_relay_arguments`."""

PAGED_FORWARD: Final = ListSize(
    assumed_size=paging.DEFAULT_PAGE,
    slicing_arguments=["first"],
    sized_fields=["edges"],
    require_one_slicing_argument=False,
)
"""`@listSize` directive of a connection that pages forward only, by `first` and `after`."""

ARGUMENT_SIZE: Final = "argument_size"
"""Key of an `ArgumentSize` in a field's `metadata`."""


@dataclass(frozen=True, slots=True)
class ArgumentSize:
    """Size of lists below a field. It depends on the field's arguments in a way that `@listSize` cannot express.

    Attributes:
        sized_fields: fields of the returned type that are lists of this size.
        bound: returns the maximum size. Its parameter has the arguments by name, as JSON values; they may be invalid.
    """

    sized_fields: tuple[str, ...]
    bound: Callable[[Mapping[str, Any]], int]


class Metadata(dict[str, str]):
    """Metadata of a transfer: texts by name."""


def _parse_metadata(value: Any) -> Metadata:
    # The message does not quote the value, which may hold a card number.
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise GraphQLError("metadata must be an object whose values are texts")
    return Metadata(value)


SCALARS: Final[dict[object, Any]] = {
    datetime: replace(
        DateTimeDefinition,
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=lambda value: value if isinstance(value, str) else value.isoformat(),
    ),
    Secret: strawberry.scalar(
        name="Secret",
        specified_by_url="https://spec.graphql.org/draft/#sec-String",
        description="Input text that no response repeats, not even in an error.",
        # A parse error would quote the value. So a value that is not text becomes an empty text; the field rejects it.
        parse_value=lambda value: Secret(value if isinstance(value, str) else ""),
    ),
    Metadata: strawberry.scalar(
        name="Metadata",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259#section-4",
        description='Texts by name: an object whose values are texts, such as {order: "42"}.',
        serialize=dict,
        parse_value=_parse_metadata,
    ),
}
"""Custom scalars, for the configuration of every schema."""


@strawberry.federation.interface(description="The reason why a mutation was rejected.")
class Error:
    message: str = strawberry.field(description="Message for people.")
    code: str = strawberry.field(description="Stable machine name.")


@strawberry.federation.type(shareable=True, description="One invalid field of the input.")
class FieldProblem:
    field: str
    message: str


@strawberry.federation.type(shareable=True, description="The request is invalid; do not retry it unchanged.")
class InvalidInput(Error):
    fields: list[FieldProblem] = strawberry.field(directives=[list_size_directive(10)])


@strawberry.federation.type(shareable=True, description="The balance is lower than the amount.")
class InsufficientFunds(Error):
    needed: Money
    available: Money


@strawberry.federation.type(shareable=True, description="The amount and the account have different currencies.")
class CurrencyMismatch(Error):
    account_id: strawberry.ID
    currency: str


@strawberry.federation.type(shareable=True, description="The account does not exist, or belongs to another user.")
class AccountNotFound(Error):
    account_id: strawberry.ID


@strawberry.federation.type(shareable=True, description="The account is closed; it can neither send nor receive money.")
class AccountClosed(Error):
    account_id: strawberry.ID


@strawberry.federation.type(
    shareable=True, description="The account is frozen: it cannot pay, or cannot be paid, and cannot be closed."
)
class AccountFrozen(Error):
    account_id: strawberry.ID


@strawberry.federation.type(shareable=True, description="The account has a balance, so it cannot be closed.")
class AccountNotEmpty(Error):
    account_id: strawberry.ID


@strawberry.federation.type(
    shareable=True, description="The balance of the account is below the floor, so the floor was not set."
)
class FloorAboveBalance(Error):
    account_id: strawberry.ID
    floor: Money


@strawberry.enum(description="Period of a top-up limit.")
class LimitPeriod(Enum):
    TOP_UP = strawberry.enum_value("TOP_UP", description="One top-up.")
    DAY = strawberry.enum_value("DAY", description="All top-ups of the caller in 24 hours.")


@strawberry.federation.type(shareable=True, description="The top-up exceeds a limit.")
class TopUpLimitExceeded(Error):
    limit: Money
    available: Money = strawberry.field(description="Largest amount that is allowed now.")
    period: LimitPeriod


@strawberry.federation.type(shareable=True, description="Too many cards were declined. The card was not charged.")
class TopUpDeclinesExceeded(Error):
    retry_after_seconds: int = strawberry.field(description="Seconds until another card may be tried.")


@strawberry.federation.type(shareable=True, description="The idempotency key was used with another request.")
class IdempotencyConflict(Error):
    idempotency_key: str


@strawberry.federation.type(
    shareable=True,
    description="An earlier transfer from the account has the reference, and the request asks for a unique one.",
)
class ReferenceUsed(Error):
    account_id: strawberry.ID
    reference: str


class _ErrorToUnionMember(strawberry.ExceptionHandler):  # type: ignore[type-arg]  # each instance sets its types
    """Converts an error that a resolver raises to a member of the resolver's union."""

    def __init__(
        self,
        exception_type: type[errors.WalletError],
        error_type: type[Error],
        fields: Callable[[Any], dict[str, Any]],
    ) -> None:
        self.exception_type = exception_type
        self.error_type = error_type
        self._fields = fields

    def handle(self, exception: errors.WalletError, *, field: StrawberryField, info: Any) -> Error:  # noqa: ARG002
        return self.convert(exception)

    def convert(self, exception: errors.WalletError) -> Error:
        """Return the error as data."""
        return self.error_type(message=exception.message, code=exception.reason, **self._fields(exception))


def _violations_to_graph(error: errors.InvalidInput) -> dict[str, Any]:
    return {"fields": [FieldProblem(field=each.field, message=each.message) for each in error.violations]}


def _funds_to_graph(error: errors.InsufficientFunds) -> dict[str, Any]:
    needed, available = (Money(amount=amount, currency=error.currency) for amount in (error.needed, error.available))
    return {"needed": needed, "available": available}


def _floor_to_graph(error: errors.FloorAboveBalance) -> dict[str, Any]:
    return {"account_id": error.account_id, "floor": Money(amount=error.floor, currency=error.currency)}


def _limit_to_graph(error: errors.TopUpLimitExceeded) -> dict[str, Any]:
    limit, available = (Money(amount=amount, currency=error.currency) for amount in (error.limit, error.available))
    return {"limit": limit, "available": available, "period": LimitPeriod(error.period)}


def _declines_to_graph(error: errors.TopUpDeclinesExceeded) -> dict[str, Any]:
    return {"retry_after_seconds": int(error.retry_after_seconds)}


ERRORS_AS_DATA: Final = (
    _ErrorToUnionMember(errors.InvalidInput, InvalidInput, _violations_to_graph),
    _ErrorToUnionMember(errors.InsufficientFunds, InsufficientFunds, _funds_to_graph),
    _ErrorToUnionMember(errors.CurrencyMismatch, CurrencyMismatch, errors.CurrencyMismatch.metadata),
    _ErrorToUnionMember(errors.AccountNotFound, AccountNotFound, errors.AccountNotFound.metadata),
    _ErrorToUnionMember(errors.AccountClosed, AccountClosed, errors.AccountClosed.metadata),
    _ErrorToUnionMember(errors.AccountFrozen, AccountFrozen, errors.AccountFrozen.metadata),
    _ErrorToUnionMember(errors.AccountNotEmpty, AccountNotEmpty, errors.AccountNotEmpty.metadata),
    _ErrorToUnionMember(errors.FloorAboveBalance, FloorAboveBalance, _floor_to_graph),
    _ErrorToUnionMember(errors.TopUpLimitExceeded, TopUpLimitExceeded, _limit_to_graph),
    _ErrorToUnionMember(errors.TopUpDeclinesExceeded, TopUpDeclinesExceeded, _declines_to_graph),
    _ErrorToUnionMember(errors.ReferenceUsed, ReferenceUsed, errors.ReferenceUsed.metadata),
    _ErrorToUnionMember(errors.IdempotencyConflict, IdempotencyConflict, errors.IdempotencyConflict.metadata),
)
"""Exception handlers of every schema: an expected error becomes data if the field's union has the error's type."""

_CONVERTERS: Final = {each.exception_type: each for each in ERRORS_AS_DATA}


def error_as_data(error: errors.WalletError) -> Error | None:
    """Return an expected error as data, for a field that has several results. None: the error is not expected."""
    converter = _CONVERTERS.get(type(error))
    return None if converter is None else converter.convert(error)
