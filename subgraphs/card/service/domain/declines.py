"""Limits of declined cards, against card testing: pure rules. Stored attempts have only fingerprints of card numbers.

An attempt takes a place in each of its limits before the acquirer is called, and keeps it if the card is declined. So
concurrent attempts cannot exceed a limit together.
"""

import hmac
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from ipaddress import IPv4Network, IPv6Network, ip_network
from uuid import UUID

from subgraphs.card.service.domain.cards import CardDetails
from subgraphs.card.service.domain.top_up import IdempotencyKey, Status

Network = IPv4Network | IPv6Network


class LimitKind(StrEnum):
    """Kind of a limit: declines are counted by customer, by client address and by card number."""

    CUSTOMER = "customer"
    """The caller, with all of their accounts."""
    ADDRESS = "address"
    """The client's address, with all customers behind it. IPv6: the /64 network."""
    CARD = "card"
    """The card's number, with any expiry date and any code."""


class AttemptState(StrEnum):
    """State of an attempt to use a card. An attempt that ends without a decline is deleted."""

    TOKENIZING = "TOKENIZING"
    """The acquirer validates the card. The top-up does not exist yet."""
    AUTHORIZING = "AUTHORIZING"
    """The top-up exists; the outcome of its authorization is not known yet."""
    DECLINED = "DECLINED"
    """The acquirer or the issuer declined the card."""


Subject = str | bytes
"""Customer (issuer and subject), address, or fingerprint of a card."""


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """Attempt to use a card.

    Attributes:
        id: id of the top-up that the attempt leads to.
        key: idempotency key of the request. One key has at most one attempt in progress.
        address: address or network of the client; None if the gateway did not state it.
        card: `card_fingerprint` of the number.
    """

    id: UUID
    key: IdempotencyKey
    address: str | None
    card: bytes

    def subject(self, kind: LimitKind) -> Subject | None:
        """Return the customer, address or card by which a limit of this kind counts; None if the value is not known."""
        return {LimitKind.CUSTOMER: self.key.principal, LimitKind.ADDRESS: self.address, LimitKind.CARD: self.card}[
            kind
        ]


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """Attempt in the database.

    Attributes:
        subjects: customer, address and card of the attempt, by kind of limit. A kind is missing if its value is not
            known, or after an operator has lifted a block of this kind.
        idempotency_key: key of the request.
        state: state of the attempt.
        age_seconds: time since the attempt reached the state.
    """

    id: UUID
    subjects: Mapping[LimitKind, Subject]
    idempotency_key: str
    state: AttemptState
    age_seconds: float


@dataclass(frozen=True, slots=True)
class DeclineLimits:
    """Limits of declined cards.

    Attributes:
        per_customer: maximum declines of one customer within the window.
        per_address: maximum declines from one public address.
        per_shared_address: maximum declines from one address of `shared_networks`, or from one that is not public.
        per_card: maximum declines of one card number.
        window_seconds: length of the sliding window.
        attempt_seconds: time for which an attempt counts while the card is tokenized. It is longer than a call to the
            acquirer with all retries. After this time, the attempt of a process that died no longer counts.
        shared_networks: networks with many customers behind each address, such as those of a mobile carrier.
    """

    per_customer: int = 5
    per_address: int = 20
    per_shared_address: int = 100
    per_card: int = 5
    window_seconds: float = 3600.0
    attempt_seconds: float = 15.0
    shared_networks: tuple[Network, ...] = ()

    def maximum(self, kind: LimitKind, subject: Subject) -> int:
        """Return the maximum number of declines of a customer, an address or a card."""
        match kind:
            case LimitKind.CUSTOMER:
                return self.per_customer
            case LimitKind.CARD:
                return self.per_card
            case LimitKind.ADDRESS:
                return self.per_shared_address if self._is_shared(str(subject)) else self.per_address

    def _is_shared(self, address: str) -> bool:
        """Return whether many customers may share the address. A private address may be that of a proxy."""
        network = ip_network(address)
        if not network.is_global:
            return True
        return any(network.version == each.version and network.subnet_of(each) for each in self.shared_networks)  # type: ignore[arg-type]  # of one version


@dataclass(frozen=True, slots=True)
class Room:
    """The attempt may start now."""


@dataclass(frozen=True, slots=True)
class NoRoomYet:
    """Attempts in progress may fill a limit, or one of them has the new attempt's key: wait for their outcomes."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """The declines reach a limit. It has room again after `seconds`, if no further card is declined."""

    kind: LimitKind
    seconds: float


Verdict = Room | NoRoomYet | Blocked


def judge(new: NewAttempt, stored: Iterable[StoredAttempt], limits: DeclineLimits) -> Verdict:
    """Return whether an attempt may start.

    Args:
        new: the attempt.
        stored: all stored attempts with the customer, address or card of `new`. Other attempts are ignored.
        limits: limits of declined cards.

    Returns:
        The verdict of the strictest limit; if several limits block the attempt, the block that lasts longest.
    """
    counted = [each for each in stored if _is_counted(each, limits)]
    blocks: list[Blocked] = []
    has_room = True
    for kind in LimitKind:
        subject = new.subject(kind)
        if subject is None:
            continue
        same = [each for each in counted if each.subjects.get(kind) == subject]
        maximum = limits.maximum(kind, subject)
        blocked_seconds = _blocked_seconds(same, maximum, limits)
        if blocked_seconds is not None:
            blocks.append(Blocked(kind, blocked_seconds))
        has_room &= len(same) < maximum
        if kind is LimitKind.CUSTOMER:
            has_room &= not any(
                each.idempotency_key == new.key.key and each.state is not AttemptState.DECLINED for each in same
            )
    if blocks:
        return max(blocks, key=lambda block: block.seconds)
    return Room() if has_room else NoRoomYet()


def _is_counted(attempt: StoredAttempt, limits: DeclineLimits) -> bool:
    is_tokenizing = attempt.state is AttemptState.TOKENIZING
    return attempt.age_seconds < (limits.attempt_seconds if is_tokenizing else limits.window_seconds)


def _blocked_seconds(attempts: Iterable[StoredAttempt], maximum: int, limits: DeclineLimits) -> float | None:
    """Return the time until the number of counted declines is below the maximum; None if it already is."""
    ages = sorted((each.age_seconds for each in attempts if each.state is AttemptState.DECLINED), reverse=True)
    return None if len(ages) < maximum else limits.window_seconds - ages[len(ages) - maximum]


@dataclass(frozen=True, slots=True)
class Block:
    """Limit that is reached now, as operators see it.

    Attributes:
        kind: kind of the limit.
        attempt_id: newest declined attempt of the block; together with the kind it identifies the block.
        subject: customer (issuer and subject) or address; None for a card, whose fingerprint never leaves the service.
        customers: customers whose cards were declined, except for those whose own block was lifted.
        declines: counted declines.
        maximum: maximum declines within the window.
        seconds: time until the block ends.
    """

    kind: LimitKind
    attempt_id: UUID
    subject: str | None
    customers: tuple[str, ...]
    declines: int
    maximum: int
    seconds: float


def find_blocks(stored: Iterable[StoredAttempt], limits: DeclineLimits) -> list[Block]:
    """Return all limits that are reached, sorted by kind; within a kind, the longest block first."""
    groups: defaultdict[tuple[LimitKind, Subject], list[StoredAttempt]] = defaultdict(list)
    for each in stored:
        if each.state is AttemptState.DECLINED and _is_counted(each, limits):
            for kind, subject in each.subjects.items():
                groups[kind, subject].append(each)
    blocks = []
    for (kind, subject), declined in groups.items():
        maximum = limits.maximum(kind, subject)
        seconds = _blocked_seconds(declined, maximum, limits)
        if seconds is not None:
            customers = {
                str(each.subjects[LimitKind.CUSTOMER]) for each in declined if LimitKind.CUSTOMER in each.subjects
            }
            newest = min(declined, key=lambda each: each.age_seconds)
            shown = subject if isinstance(subject, str) else None
            blocks.append(Block(kind, newest.id, shown, tuple(sorted(customers)), len(declined), maximum, seconds))
    return sorted(blocks, key=lambda block: (list(LimitKind).index(block.kind), -block.seconds))


class AttemptOutcome(Enum):
    """Outcome of the authorization of an attempt."""

    DECLINED = auto()
    """The card was declined: the attempt counts."""
    OTHER = auto()
    """The card was approved, or an authorization of unknown outcome was cancelled: the attempt no longer counts."""


def attempt_outcome(before: Status, after: Status) -> AttemptOutcome | None:
    """Return the outcome that a change of a top-up's status reveals; None if it was known before, or is not known yet.

    A top-up that needs a review keeps its attempt, which counts until the end of the window at the latest.
    """
    if before is not Status.CREATED or after in {Status.CREATED, Status.NEEDS_REVIEW}:
        return None
    return AttemptOutcome.DECLINED if after is Status.DECLINED else AttemptOutcome.OTHER


def card_fingerprint(secret: bytes, number: str) -> bytes:
    """Return the fingerprint of a card number.

    Without the secret, nobody can find the number by computing the fingerprints of all possible numbers.
    """
    return hmac.digest(secret, f"card\0{number}".encode(), "sha256")


def card_digest(secret: bytes, card: CardDetails) -> bytes:
    """Return the digest of number and expiry date, to compare the card of a repeated request locally."""
    text = f"card and expiry\0{card.number}\0{card.expiry_year}\0{card.expiry_month}"
    return hmac.digest(secret, text.encode(), "sha256")
