"""The GraphQL types that all subgraphs share: money, references, pages, secrets, and errors as data."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

import strawberry
from strawberry import UNSET
from strawberry.federation.schema_directives import Cost, ListSize
from strawberry.types.field import StrawberryField

from wallet import errors, money, paging
from wallet.inputs import Secret


@strawberry.federation.type(shareable=True, description="An exact amount of one currency.")
class Money:
    amount: str = strawberry.field(description="A decimal number with as many decimals as its currency has.")
    currency: str = strawberry.field(description="ISO 4217.")

    @classmethod
    def from_money(cls, value: money.Money) -> "Money":
        """The same amount for the graph."""
        return cls(amount=str(value), currency=value.currency)


@strawberry.federation.type(
    shareable=True,
    description="Someone's account by its id and nothing else: nobody reads a counterparty's balance.",
)
class AccountRef:
    id: strawberry.ID


@strawberry.federation.type(shareable=True, description="Where a page lies, as Relay has it.")
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None

    @classmethod
    def from_cursors(cls, cursors: Sequence[str], *, has_older: bool, has_newer: bool) -> "PageInfo":
        """Where a page of these cursors lies, newest first: next is older, previous is newer."""
        return cls(
            has_next_page=has_older,
            has_previous_page=has_newer,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        )


def cost_directive(weight: int) -> Cost:
    """The directive of a field that costs as much as so many objects by itself: `@cost`."""
    return Cost(weight=weight)


def list_size_directive(assumed: int) -> ListSize:
    """The directive of a list of about so many: `@listSize`."""
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
"""The directive of a connection whose arguments `paging.relay` reads."""

PAGED_ONWARDS: Final = ListSize(
    assumed_size=paging.DEFAULT_PAGE,
    slicing_arguments=["first"],
    sized_fields=["edges"],
    require_one_slicing_argument=False,
)
"""The same of one that goes one way, by `first` and `after`."""

SCALARS: Final[dict[object, Any]] = {
    Secret: strawberry.scalar(
        name="Secret",
        description="Text that goes in and never comes out: no answer repeats it, errors included.",
        # What is no text is no error here, which would quote it: it becomes an empty text, refused by its field's name.
        parse_value=lambda value: Secret(value if isinstance(value, str) else ""),
    ),
}
"""For the configuration of every schema: the scalars that Python has no type of its own for."""


@strawberry.federation.interface(description="Why something was not done.")
class Error:
    message: str = strawberry.field(description="For people.")
    code: str = strawberry.field(description="The stable machine name.")


@strawberry.federation.type(shareable=True, description="What is wrong with one field of the input.")
class FieldProblem:
    field: str
    message: str


@strawberry.federation.type(shareable=True, description="The request can never succeed as it stands.")
class InvalidInput(Error):
    fields: list[FieldProblem] = strawberry.field(directives=[list_size_directive(5)])


@strawberry.federation.type(shareable=True, description="The account holds less than is needed.")
class InsufficientFunds(Error):
    needed: Money
    available: Money


@strawberry.federation.type(shareable=True, description="The amount's currency is not the account's.")
class CurrencyMismatch(Error):
    account_id: strawberry.ID
    currency: str


@strawberry.federation.type(shareable=True, description="There is no such account that the caller may use.")
class AccountNotFound(Error):
    account_id: strawberry.ID


@strawberry.federation.type(shareable=True, description="The account neither pays nor is paid any more.")
class AccountClosed(Error):
    account_id: strawberry.ID


@strawberry.enum(description="What a limit of top-ups holds for.")
class LimitPeriod(Enum):
    TOP_UP = strawberry.enum_value("TOP_UP", description="One top-up.")
    DAY = strawberry.enum_value("DAY", description="All of the caller's in 24 hours.")


@strawberry.federation.type(shareable=True, description="More than may be paid in by card.")
class TopUpLimitExceeded(Error):
    limit: Money
    available: Money = strawberry.field(description="What may still be paid in now.")
    period: LimitPeriod


@strawberry.federation.type(shareable=True, description="The idempotency key was used with another request.")
class IdempotencyConflict(Error):
    idempotency_key: str


class _AsData(strawberry.ExceptionHandler):  # type: ignore[type-arg]  # each instance says its own types
    """Makes one kind of expected error, raised by a resolver, the member of the resolver's union that stands for it."""

    def __init__(
        self,
        exception_type: type[errors.WalletError],
        error_type: type[Error],
        data: Callable[[Any], dict[str, Any]],
    ) -> None:
        self.exception_type = exception_type
        self.error_type = error_type
        self._data = data

    def handle(self, exception: errors.WalletError, *, field: StrawberryField, info: Any) -> Error:  # noqa: ARG002
        return self.error_type(message=exception.message, code=exception.reason, **self._data(exception))


def _problems(error: errors.InvalidInput) -> dict[str, Any]:
    return {"fields": [FieldProblem(field=each.field, message=each.message) for each in error.violations]}


def _funds(error: errors.InsufficientFunds) -> dict[str, Any]:
    needed, available = (Money(amount=amount, currency=error.currency) for amount in (error.needed, error.available))
    return {"needed": needed, "available": available}


def _limit(error: errors.TopUpLimitExceeded) -> dict[str, Any]:
    limit, available = (Money(amount=amount, currency=error.currency) for amount in (error.limit, error.available))
    return {"limit": limit, "available": available, "period": LimitPeriod(error.period)}


ERRORS_AS_DATA: Final = (
    _AsData(errors.InvalidInput, InvalidInput, _problems),
    _AsData(errors.InsufficientFunds, InsufficientFunds, _funds),
    _AsData(errors.CurrencyMismatch, CurrencyMismatch, errors.CurrencyMismatch.metadata),
    _AsData(errors.AccountNotFound, AccountNotFound, errors.AccountNotFound.metadata),
    _AsData(errors.AccountClosed, AccountClosed, errors.AccountClosed.metadata),
    _AsData(errors.TopUpLimitExceeded, TopUpLimitExceeded, _limit),
    _AsData(errors.IdempotencyConflict, IdempotencyConflict, errors.IdempotencyConflict.metadata),
)
"""How a schema turns expected errors into data, wherever a field's union has room for them."""
