"""Tables of the identity service. Alembic migrations create them; a test compares these definitions with the schema.

The tables store only the hash of a password. Of a refresh token they store only the id, without the HMAC. So a copy of
the tables gives no access.
"""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.sql.elements import ColumnElement

metadata: Final = MetaData()

_time: Final = DateTime(timezone=True)
_now: Final = text("now()")

users: Final = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True, comment="subject (sub) of the user's tokens"),
    Column("username", Text, nullable=False, comment="name as it was registered; compared without regard to case"),
    Column("password_hash", Text, nullable=False, comment="Argon2id hash with its salt and parameters"),
    Column("role", Text, nullable=False, server_default="CUSTOMER"),
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("password_changed_at", _time, nullable=False, server_default=_now),
    # The unique index below implies this constraint, but processes of the previous release name it in their SQL.
    UniqueConstraint("username", name="users_username"),
    CheckConstraint("username ~ '^[A-Za-z][A-Za-z0-9._-]{2,63}$'", name="users_username_form"),
    CheckConstraint("password_hash LIKE '$argon2id$%'", name="users_password_hash"),
    CheckConstraint("role IN ('CUSTOMER', 'OPERATOR', 'ADMIN')", name="users_role"),
)

folded_username: Final[ColumnElement[str]] = func.lower(users.c.username.collate("C"))
"""Name in the form of `fold_username`. The C locale folds ASCII letters only, in the same way on every server."""
Index("users_username_folded", folded_username, unique=True)

attempts: Final = Table(
    "attempts",
    metadata,
    Column("username", Text, primary_key=True, comment="folded name of the attempts, whether or not the user exists"),
    Column(
        "count", Integer, nullable=False, server_default=text("0"), comment="number of attempts since the last login"
    ),
    Column(
        "locked_until",
        _time,
        nullable=False,
        server_default=_now,
        comment="end of the lock; start of the last attempt if it did not lock the name",
    ),
    Index("attempts_locked_until", "locked_until"),
)

sign_ins: Final = Table(
    "sign_ins",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", name="sign_ins_user_id_fkey"), nullable=False),
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("expires_at", _time, nullable=False, comment="expiry of the session and of all its refresh tokens"),
    Column("revoked_at", _time, comment="time of the logout, the detected token reuse or the password change"),
    Index("sign_ins_expiry", "expires_at"),
    Index("sign_ins_user_id", "user_id"),
)

refresh_tokens: Final = Table(
    "refresh_tokens",
    metadata,
    Column("id", Uuid, primary_key=True, comment="not a valid token without its HMAC"),
    Column(
        "sign_in",
        Uuid,
        ForeignKey("sign_ins.id", name="refresh_tokens_sign_in_fkey", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("issued_at", _time, nullable=False, server_default=_now),
    Column("replaced_by", Uuid, comment="successor, created by the first use"),
    Column("replaced_at", _time),
    CheckConstraint("(replaced_by IS NULL) = (replaced_at IS NULL)", name="refresh_tokens_replaced"),
    UniqueConstraint("replaced_by", name="refresh_tokens_successor"),
    Index("refresh_tokens_sign_in", "sign_in"),
)
