"""Values of the identity client."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Role = Literal["CUSTOMER", "OPERATOR", "ADMIN"]


@dataclass(frozen=True, slots=True)
class User:
    """User. `id` is the subject of the user's tokens and the owner id of the user's accounts."""

    id: str
    username: str
    role: Role
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Tokens:
    """Access token and refresh token of a session. The `repr` contains neither token."""

    access: str = field(repr=False)
    access_expires_at: datetime
    refresh: str = field(repr=False)
    refresh_expires_at: datetime
