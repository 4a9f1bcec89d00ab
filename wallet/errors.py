"""All errors that services and the gateway return to callers.

Each class has its data as fields, a machine name (`reason`) and a gRPC status code (`code`). `kit.rpc.status` converts
errors to gRPC statuses and back; `gateway.errors` maps them to HTTP and GraphQL.
"""

from dataclasses import MISSING, dataclass, fields, replace
from enum import Enum
from typing import ClassVar, Final, Self


class Code(Enum):
    """gRPC status codes in use, with their canonical numbers."""

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
    """One invalid field of a request.

    Attributes:
        field: name of the field in the contract, in camelCase.
        message: rule that the value breaks, in a form that follows the field's name: "must be a UUID".
    """

    field: str
    message: str


@dataclass
class WalletError(Exception):
    """Base class of all expected errors.

    Attributes:
        reason: stable machine name.
        code: gRPC status code.
        template: format string of the message, with the fields of the class. Callers see the message.
        is_replay: whether this is the stored outcome of an earlier request with the same idempotency key. The mark is
            not part of the error's data: a replayed error equals the first one.
    """

    reason: ClassVar[str]
    code: ClassVar[Code]
    template: ClassVar[str]
    is_replay = False

    @property
    def message(self) -> str:
        """Message for people: the error and, if possible, the next step."""
        return self.template.format(**self.metadata())

    def __str__(self) -> str:
        return self.message

    def as_replay(self) -> Self:
        """Return a copy that is marked as a replay."""
        replayed = replace(self)
        replayed.is_replay = True
        return replayed

    def metadata(self) -> dict[str, str]:
        """Return the fields as strings, enough for `from_metadata` to rebuild the error."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Self:
        """Rebuild an error from `metadata()`.

        The sender may run an older release, in which the error has fewer fields. A missing field gets its default
        value; without a default it is empty.
        """
        defaults = {field.name: "" for field in fields(cls) if field.default is MISSING}
        known = {field.name: metadata[field.name] for field in fields(cls) if field.name in metadata}
        return cls(**(defaults | known))


@dataclass
class InvalidInput(WalletError):
    """The request is invalid; do not retry it unchanged. Each violation names a field."""

    reason = "INVALID_INPUT"
    code = Code.INVALID_ARGUMENT
    violations: tuple[FieldViolation, ...]

    @classmethod
    def for_field(cls, field: str, message: str) -> Self:
        """Build an error with one violation."""
        return cls((FieldViolation(field, message),))

    @property
    def message(self) -> str:  # noqa: D102  see the base class
        return "; ".join(f"{violation.field}: {violation.message}" for violation in self.violations)

    def metadata(self) -> dict[str, str]:  # noqa: D102
        return {}  # violations are sent as google.rpc.BadRequest

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Self:  # noqa: D102
        return cls(tuple(FieldViolation(field, message) for field, message in metadata.items()))


@dataclass
class InsufficientFunds(WalletError):
    """The sender's balance is lower than the amount. Amounts are decimal strings in `currency`."""

    reason = "INSUFFICIENT_FUNDS"
    code = Code.FAILED_PRECONDITION
    template = "the account has {available} {currency}, but the transfer needs {needed} {currency}"
    account_id: str
    needed: str
    available: str
    currency: str


@dataclass
class CurrencyMismatch(WalletError):
    """The amount and the account have different currencies."""

    reason = "CURRENCY_MISMATCH"
    code = Code.FAILED_PRECONDITION
    template = "the account {account_id} is not in {currency}; use an account in that currency"
    account_id: str
    currency: str


@dataclass
class AccountNotFound(WalletError):
    """The account does not exist or belongs to someone else; the error does not reveal which."""

    reason = "ACCOUNT_NOT_FOUND"
    code = Code.NOT_FOUND
    template = "account {account_id} was not found"
    account_id: str


@dataclass
class AccountClosed(WalletError):
    """The account is closed permanently: it can neither send nor receive money."""

    reason = "ACCOUNT_CLOSED"
    code = Code.FAILED_PRECONDITION
    template = "the account {account_id} is closed; use an open account"
    account_id: str


@dataclass
class AccountFrozen(WalletError):
    """The account is frozen: it cannot pay, or cannot be paid, and cannot be closed."""

    reason = "ACCOUNT_FROZEN"
    code = Code.FAILED_PRECONDITION
    template = "the account {account_id} is frozen; ask support, or use another account"
    account_id: str


@dataclass
class AccountNotEmpty(WalletError):
    """The account has a balance, and only an empty account can be closed."""

    reason = "ACCOUNT_NOT_EMPTY"
    code = Code.FAILED_PRECONDITION
    template = "the account {account_id} has a balance; move the money out before you close it"
    account_id: str


@dataclass
class FloorAboveBalance(WalletError):
    """The floor is above the balance of the account, so it was not set. `floor` is a decimal string in `currency`."""

    reason = "FLOOR_ABOVE_BALANCE"
    code = Code.FAILED_PRECONDITION
    template = "the balance of the account {account_id} is below {floor} {currency}; set a lower floor"
    account_id: str
    floor: str
    currency: str


@dataclass
class ReferenceUsed(WalletError):
    """An earlier transfer from the account has the reference, and the request asks for a unique one."""

    reason = "REFERENCE_USED"
    code = Code.ALREADY_EXISTS
    template = "an earlier transfer from the account has the reference {reference}; use another reference and a new key"
    account_id: str
    reference: str


@dataclass
class TransferNotFound(WalletError):
    """The transfer does not exist or belongs to other users; the error does not reveal which."""

    reason = "TRANSFER_NOT_FOUND"
    code = Code.NOT_FOUND
    template = "transfer {transfer_id} was not found"
    transfer_id: str


@dataclass
class TopUpNotFound(WalletError):
    """The top-up does not exist or belongs to someone else; the error does not reveal which."""

    reason = "TOP_UP_NOT_FOUND"
    code = Code.NOT_FOUND
    template = "top-up {top_up_id} was not found"
    top_up_id: str


@dataclass
class TopUpLimitExceeded(WalletError):
    """The amount exceeds the limit of one top-up (`period` TOP_UP) or of one caller in 24 hours (DAY).

    Amounts are decimal strings in `currency`; `available` is the largest amount allowed now.
    """

    reason = "TOP_UP_LIMIT_EXCEEDED"
    code = Code.FAILED_PRECONDITION
    template = (
        "the top-up exceeds the limit of {limit} {currency} ({period}); at most {available} {currency} are allowed now"
    )
    period: str
    limit: str
    available: str
    currency: str


@dataclass
class TopUpDeclinesExceeded(WalletError):
    """Too many attempts were declined: attempts of the caller, from the caller's address, or with this card.

    The error does not reveal which. The acquirer was not called, and nothing was done. Retry after the given time.
    """

    reason = "TOP_UP_DECLINES_EXCEEDED"
    code = Code.RESOURCE_EXHAUSTED
    template = "too many cards were declined; try again in {retry_after_seconds} s"
    retry_after_seconds: str


@dataclass
class IdempotencyConflict(WalletError):
    """The idempotency key was used with another request. A new request needs a new key."""

    reason = "IDEMPOTENCY_CONFLICT"
    code = Code.ALREADY_EXISTS
    template = "this idempotency key was used with another request; use a new key"
    idempotency_key: str


@dataclass
class Unauthenticated(WalletError):
    """The call has no valid token. `problem` describes the defect without quoting the token.

    `token_error` is `invalid_token` if the call has a token that is not valid, and empty if it has none.
    """

    reason = "UNAUTHENTICATED"
    code = Code.UNAUTHENTICATED
    template = "{problem}"
    problem: str = "a bearer token is required"
    token_error: str = ""

    @classmethod
    def for_token(cls, problem: str) -> Self:
        """Build the error of a token that is not valid."""
        return cls(problem, "invalid_token")


@dataclass
class TokenTooLong(WalletError):
    """The token is longer than the services accept in the metadata of a call. `limit` is in bytes."""

    reason = "TOKEN_TOO_LONG"
    code = Code.UNAUTHENTICATED
    template = "the token must be at most {limit} bytes; get one with fewer claims"
    limit: str


@dataclass
class PermissionDenied(WalletError):
    """The caller is authenticated, but its role does not allow the call."""

    reason = "PERMISSION_DENIED"
    code = Code.PERMISSION_DENIED
    template = "{problem}"
    problem: str = "the caller is not allowed to make this call"


@dataclass
class InvalidCredentials(WalletError):
    """The password is wrong or the user does not exist; the error does not reveal which."""

    reason = "INVALID_CREDENTIALS"
    code = Code.UNAUTHENTICATED
    template = "the user name or the password is wrong"


@dataclass
class WrongPassword(WalletError):
    """The current password of a password change is wrong. The attempt counts as a failed login."""

    reason = "WRONG_PASSWORD"
    code = Code.FAILED_PRECONDITION
    template = "the current password is wrong; nothing was changed, and too many attempts lock the user name"


@dataclass
class TooManyAttempts(WalletError):
    """The user name is locked after failed logins, whether or not the user exists. The password was not checked."""

    reason = "TOO_MANY_ATTEMPTS"
    code = Code.RESOURCE_EXHAUSTED
    template = "too many attempts; try again in {retry_after_seconds} s"
    retry_after_seconds: str


@dataclass
class UsernameTaken(WalletError):
    """The user name is taken.

    If the response to an earlier request was lost, that request may have registered the name. Then a login succeeds.
    """

    reason = "USERNAME_TAKEN"
    code = Code.ALREADY_EXISTS
    template = "this user name is taken; choose another one, or log in"
    username: str


@dataclass
class UserNotFound(WalletError):
    """The user does not exist or is hidden from the caller; the error does not reveal which."""

    reason = "USER_NOT_FOUND"
    code = Code.NOT_FOUND
    template = "the user was not found"  # the id may be any text, because another issuer may have chosen it
    user_id: str


@dataclass
class SubscriberTooSlow(WalletError):
    """The subscriber fell too far behind, so the stream ended.

    Subscribe again with the last received operation's cursor.
    """

    reason = "SUBSCRIBER_TOO_SLOW"
    code = Code.RESOURCE_EXHAUSTED
    template = "the subscriber fell too far behind; subscribe again after the last operation received"


@dataclass
class LedgerRestored(WalletError):
    """The ledger was restored from a backup.

    The cursor was issued, or the stream was opened, before the restore, so its position may not exist.
    """

    reason = "LEDGER_RESTORED"
    code = Code.FAILED_PRECONDITION
    template = (
        "the ledger was restored from a backup, so earlier cursors are not valid; "
        "read or subscribe again without a cursor"
    )


@dataclass
class ResourceExhausted(WalletError):
    """The service has too much work in progress. Nothing was done; a retry is safe."""

    reason = "RESOURCE_EXHAUSTED"
    code = Code.RESOURCE_EXHAUSTED
    template = "the service is overloaded; try again in a moment"


@dataclass
class RateLimited(WalletError):
    """The caller exceeded the rate limit named `limit`. Nothing was done; retry after the given time."""

    reason = "RATE_LIMITED"
    code = Code.RESOURCE_EXHAUSTED
    template = "the rate limit for {limit} is exceeded; try again in {retry_after_seconds} s"
    limit: str
    retry_after_seconds: str


TRY_AGAIN: Final = "try again"
"""Next step after an error with an unknown outcome, for a call without an idempotency key."""

TRY_AGAIN_WITH_KEY: Final = "try again with the same idempotency key"
"""Next step after an error with an unknown outcome, for a call with an idempotency key."""


@dataclass
class Unavailable(WalletError):
    """A required service is unavailable. The outcome of a mutation is unknown: retry it with the same key.

    `next_step` is for the message; `kit.rpc.status` sets it for calls with an idempotency key.
    """

    reason = "UNAVAILABLE"
    code = Code.UNAVAILABLE
    template = "{what} is not available now; {next_step}"
    what: str = "a service"
    next_step: str = TRY_AGAIN


@dataclass
class DeadlineExceeded(WalletError):
    """The response was late. The outcome of a mutation is unknown: retry it with the same key.

    `next_step` is for the message; `kit.rpc.status` sets it for calls with an idempotency key.
    """

    reason = "DEADLINE_EXCEEDED"
    code = Code.DEADLINE_EXCEEDED
    template = "{what} did not respond in time; {next_step}"
    what: str = "a service"
    next_step: str = TRY_AGAIN


@dataclass
class InternalError(WalletError):
    """A defect of the system. Details are in the log under the request id, never in the error."""

    reason = "INTERNAL"
    code = Code.INTERNAL
    template = "an unexpected error occurred; report the request id to support"


TEMPORARY_ERRORS: Final = (Unavailable, DeadlineExceeded, ResourceExhausted, RateLimited)
"""Errors without a decision about the request: the called service is unavailable, late or overloaded, or the caller has
too many calls at once. A retry may succeed a moment later; it must have the same idempotency key.

Code that retries, and code that continues without the response, treats all of these errors alike. After Unavailable and
DeadlineExceeded the outcome is unknown; after the others nothing was done.
"""

UNKNOWN_OUTCOMES: Final = (Unavailable, DeadlineExceeded, InternalError)
"""Errors after which a request may have been executed, or may be executed later. A retry with the same idempotency key
is safe.
"""

ERRORS_BY_REASON: Final[dict[str, type[WalletError]]] = {cls.reason: cls for cls in WalletError.__subclasses__()}
"""Error classes by machine name."""
