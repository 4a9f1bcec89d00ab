"""The one tree of errors that cross a wire, and their reasons.

Each class carries its data as fields and knows its machine name (`reason`) and the gRPC status that it travels as
(`code`). `kit.rpc.status` turns any of them into a status and back; `gateway.errors` maps them to HTTP.
"""

from dataclasses import dataclass, fields
from enum import Enum
from typing import ClassVar, Final, Self


class Code(Enum):
    """The gRPC status codes in use, by their canonical numbers."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of the input; `field` is its name in the contract, in camelCase."""

    field: str
    message: str


@dataclass
class WalletError(Exception):
    """Base of all expected errors. `template`, filled with the fields, is fit for the caller's eyes."""

    reason: ClassVar[str]
    code: ClassVar[Code]
    template: ClassVar[str]

    @property
    def message(self) -> str:
        """What happened and, where there is something to do, what to do next."""
        return self.template.format(**self.metadata())

    def __str__(self) -> str:
        return self.message

    def metadata(self) -> dict[str, str]:
        """The error's data as strings, by field name: all that is needed to make it again."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Self:
        """The inverse of `metadata`."""
        return cls(**{field.name: metadata.get(field.name, "") for field in fields(cls)})


@dataclass
class InvalidInput(WalletError):
    """The request can never succeed as it stands; each violation names a field."""

    reason = "INVALID_INPUT"
    code = Code.INVALID_ARGUMENT
    violations: tuple[FieldViolation, ...]

    @classmethod
    def for_field(cls, field: str, message: str) -> Self:
        """The common case of one violation."""
        return cls((FieldViolation(field, message),))

    @property
    def message(self) -> str:  # noqa: D102  as the base says
        return "; ".join(f"{violation.field}: {violation.message}" for violation in self.violations)

    def metadata(self) -> dict[str, str]:  # noqa: D102
        return {}  # violations travel as google.rpc.BadRequest

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Self:  # noqa: D102
        return cls(tuple(FieldViolation(field, message) for field, message in metadata.items()))


@dataclass
class InsufficientFunds(WalletError):
    """The account holds less than the transfer needs. Amounts are decimal strings of `currency`."""

    reason = "INSUFFICIENT_FUNDS"
    code = Code.FAILED_PRECONDITION
    template = "the account holds {available} {currency}, {needed} are needed"
    account_id: str
    needed: str
    available: str
    currency: str


@dataclass
class CurrencyMismatch(WalletError):
    """The amount's currency is not the account's."""

    reason = "CURRENCY_MISMATCH"
    code = Code.FAILED_PRECONDITION
    template = "the account {account_id} does not hold {currency}"
    account_id: str
    currency: str


@dataclass
class AccountNotFound(WalletError):
    """There is no such account, or it is not the caller's: which of the two is not told."""

    reason = "ACCOUNT_NOT_FOUND"
    code = Code.NOT_FOUND
    template = "there is no account {account_id}"
    account_id: str


@dataclass
class AccountClosed(WalletError):
    """The account is closed for good: it neither pays nor is paid."""

    reason = "ACCOUNT_CLOSED"
    code = Code.FAILED_PRECONDITION
    template = "the account {account_id} is closed"
    account_id: str


@dataclass
class AccountNotEmpty(WalletError):
    """Only an empty account can be closed. Move the money out first."""

    reason = "ACCOUNT_NOT_EMPTY"
    code = Code.FAILED_PRECONDITION
    template = "the account {account_id} still holds money; move it out before closing"
    account_id: str


@dataclass
class TransferNotFound(WalletError):
    """There is no such transfer, or the caller owns neither side: which of the two is not told."""

    reason = "TRANSFER_NOT_FOUND"
    code = Code.NOT_FOUND
    template = "there is no transfer {transfer_id}"
    transfer_id: str


@dataclass
class TopUpNotFound(WalletError):
    """There is no such top-up, or it is not the caller's: which of the two is not told."""

    reason = "TOP_UP_NOT_FOUND"
    code = Code.NOT_FOUND
    template = "there is no top-up {top_up_id}"
    top_up_id: str


@dataclass
class TopUpLimitExceeded(WalletError):
    """More than may be paid in by card: in one top-up (`period` TOP_UP), or by one caller in 24 hours (DAY).

    Amounts are decimal strings of `currency`; `available` is what may still be paid in now.
    """

    reason = "TOP_UP_LIMIT_EXCEEDED"
    code = Code.FAILED_PRECONDITION
    template = "more than may be paid in by card: the limit is {limit} {currency} ({period}), {available} are left now"
    period: str
    limit: str
    available: str
    currency: str


@dataclass
class IdempotencyConflict(WalletError):
    """The key was used with another request. Choose a new key for a new intent."""

    reason = "IDEMPOTENCY_CONFLICT"
    code = Code.ALREADY_EXISTS
    template = "the idempotency key {idempotency_key!r} was used with another request; use a new key"
    idempotency_key: str


@dataclass
class Unauthenticated(WalletError):
    """No valid token came with the call. `problem` says what is wrong with it, never what it holds."""

    reason = "UNAUTHENTICATED"
    code = Code.UNAUTHENTICATED
    template = "{problem}"
    problem: str = "a bearer token is needed"


@dataclass
class PermissionDenied(WalletError):
    """The caller is known and may not do this."""

    reason = "PERMISSION_DENIED"
    code = Code.PERMISSION_DENIED
    template = "{problem}"
    problem: str = "this caller may not do that"


@dataclass
class InvalidCredentials(WalletError):
    """The name and the password do not belong together, or there is no such user: which of the two is not told."""

    reason = "INVALID_CREDENTIALS"
    code = Code.UNAUTHENTICATED
    template = "the name or the password is wrong"


@dataclass
class TooManyAttempts(WalletError):
    """The name is locked after too many attempts, whether there is such a user or not. Nothing was checked."""

    reason = "TOO_MANY_ATTEMPTS"
    code = Code.RESOURCE_EXHAUSTED
    template = "too many attempts; try again in {retry_after_seconds} seconds"
    retry_after_seconds: str


@dataclass
class UsernameTaken(WalletError):
    """There is a user of that name. After a lost answer it may be oneself: signing in tells."""

    reason = "USERNAME_TAKEN"
    code = Code.ALREADY_EXISTS
    template = "the name {username} is taken; choose another one, or sign in"
    username: str


@dataclass
class UserNotFound(WalletError):
    """There is no such user, or it is not for the caller to see: which of the two is not told."""

    reason = "USER_NOT_FOUND"
    code = Code.NOT_FOUND
    template = "there is no user {user_id}"
    user_id: str


@dataclass
class SubscriberTooSlow(WalletError):
    """The reader of a stream fell too far behind and was let go. It may come back with the last version it saw."""

    reason = "SUBSCRIBER_TOO_SLOW"
    code = Code.RESOURCE_EXHAUSTED
    template = "the reader fell too far behind; subscribe again after the last operation seen"


@dataclass
class ResourceExhausted(WalletError):
    """More work than can be taken now. Nothing was done; a retry is safe."""

    reason = "RESOURCE_EXHAUSTED"
    code = Code.RESOURCE_EXHAUSTED
    template = "too much work at once; try again in a moment"


@dataclass
class RateLimited(WalletError):
    """This caller asked for more than one may in a while; `limit` names which of the limits. Nothing was done."""

    reason = "RATE_LIMITED"
    code = Code.RESOURCE_EXHAUSTED
    template = "more than one caller may ask for ({limit}); try again in {retry_after_seconds} seconds"
    limit: str
    retry_after_seconds: str


@dataclass
class Unavailable(WalletError):
    """A service that is needed does not answer. The outcome of a mutation is unknown: retry with the same key."""

    reason = "UNAVAILABLE"
    code = Code.UNAVAILABLE
    template = "{what} is not available now; try again with the same idempotency key"
    what: str = "a service"


@dataclass
class DeadlineExceeded(WalletError):
    """The answer did not come in time. The outcome of a mutation is unknown: retry with the same key."""

    reason = "DEADLINE_EXCEEDED"
    code = Code.DEADLINE_EXCEEDED
    template = "{what} did not answer in time; try again with the same idempotency key"
    what: str = "a service"


@dataclass
class InternalError(WalletError):
    """A defect of ours. Details are in the log under the request id, never here."""

    reason = "INTERNAL"
    code = Code.INTERNAL
    template = "an unexpected error happened; quote the request id when asking for help"


ERRORS_BY_REASON: Final[dict[str, type[WalletError]]] = {cls.reason: cls for cls in WalletError.__subclasses__()}
"""Every error by its machine name."""
