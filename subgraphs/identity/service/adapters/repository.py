"""All SQL of the identity service. All times come from the clock of the database."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Delete, Row, delete, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db.database import Database
from subgraphs.identity.service.adapters.tables import attempts, folded_username, refresh_tokens, sign_ins, users
from subgraphs.identity.service.domain.lockout import LockoutPolicy, LoginAttempts
from subgraphs.identity.service.domain.refresh_tokens import (
    RefreshToken,
    ReuseDetected,
    Rotated,
    RotationResult,
    Session,
    rotate,
)
from subgraphs.identity.service.domain.users import Credentials, Role, User, fold_username
from wallet.errors import TooManyAttempts, UsernameTaken

_ATTEMPTS_TTL: Final = timedelta(days=1)
"""Time after which the login attempts with a name are deleted; longer than the longest lock of a name."""

open_database: Final = partial(Database.open, service="identity", label="the users' database")
"""Open the database; see `Database.open`. Arguments: `url`, `max_connections`."""


class Repository:
    """Users, login attempts, sessions and refresh tokens.

    Every method raises Unavailable if the database is unavailable; a write may or may not have been committed then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ping(self) -> None:
        """Check that the database is ready; see `Database.check`."""
        await self._database.check(users)

    async def add_user(self, id_: UUID, username: str, password_hash: str) -> User:
        """Insert a user with the role CUSTOMER.

        Raises:
            UsernameTaken: another user has the name, in the same or another case.
        """
        new = postgresql.insert(users).values(id=id_, username=username, password_hash=password_hash)
        async with self._database.statement() as sql:
            inserted = await sql.execute(new.on_conflict_do_nothing().returning(users))
            row = inserted.one_or_none()
        if row is None:
            raise UsernameTaken(username)
        return _user_from_row(row)

    async def get_users(self, ids: Iterable[UUID]) -> dict[UUID, User]:
        """Return the users with these ids, by id. Ids without a user are left out."""
        async with self._database.statement() as sql:
            rows = await sql.execute(select(users).where(users.c.id.in_(list(ids))))
            return {row.id: _user_from_row(row) for row in rows}

    async def set_role(self, username: str, role: Role) -> User | None:
        """Change the role of a user and return the user; None if no user has the name. Case does not matter."""
        has_name = folded_username == fold_username(username)
        change = update(users).where(has_name).values(role=role).returning(users)
        async with self._database.statement() as sql:
            row = (await sql.execute(change)).one_or_none()
        return None if row is None else _user_from_row(row)

    async def add_attempt(self, username: str, policy: LockoutPolicy) -> Credentials | None:
        """Count a login attempt and return the user's credentials; None if the user does not exist.

        The attempt counts as failed until another method deletes it. Concurrent attempts are counted one by one.

        Raises:
            TooManyAttempts: the name is locked; the attempt is not counted.
        """
        name = fold_username(username)
        # Insert the row, or update it without a change, so that it is locked in both cases.
        locked = postgresql.insert(attempts).values(username=name)
        locked = locked.on_conflict_do_update(index_elements=["username"], set_={"count": attempts.c.count})
        async with self._database.transaction() as sql:
            row = (await sql.execute(locked.returning(attempts))).one()
            now = await _now(sql)
            previous = LoginAttempts(row.count, row.locked_until)
            current = previous.add_attempt(now, policy)
            if current is None:
                raise TooManyAttempts(str(previous.seconds_left(now)))
            change = update(attempts).where(attempts.c.username == name)
            await sql.execute(change.values(count=current.count, locked_until=current.locked_until))
            user = (await sql.execute(select(users).where(folded_username == name))).one_or_none()
        return None if user is None else _credentials_from_row(user, now)

    async def delete_attempts(self, user: User) -> None:
        """Delete the login attempts with the name of a user whose password has been verified."""
        async with self._database.statement() as sql:
            await sql.execute(_attempts_of(user))

    async def get_credentials(self, user_id: UUID) -> Credentials | None:
        """Return the current credentials of a user; None if the user does not exist."""
        async with self._database.statement() as sql:
            now = func.clock_timestamp().label("read_at")
            row = (await sql.execute(select(users, now).where(users.c.id == user_id))).one_or_none()
        return None if row is None else _credentials_from_row(row, row.read_at)

    async def change_password(
        self, credentials: Credentials, new_hash: str, *, kept_session: UUID | None
    ) -> int | None:
        """Replace the password, end the user's other sessions, and delete the login attempts with the name.

        The row of the user is locked first. `add_session` locks it too, so no login with the old password starts a
        session afterwards.

        Args:
            credentials: credentials with the verified current password.
            new_hash: hash of the new password.
            kept_session: session that does not end.

        Returns:
            The number of ended sessions. None if the password has been changed in the meantime: nothing was done.
        """
        user = credentials.user
        is_current = (users.c.id == user.id) & (users.c.password_changed_at == credentials.password_changed_at)
        is_active = (
            (sign_ins.c.user_id == user.id) & sign_ins.c.revoked_at.is_(None) & (sign_ins.c.expires_at > func.now())
        )
        if kept_session is not None:
            is_active &= sign_ins.c.id != kept_session
        now = func.clock_timestamp()
        async with self._database.transaction() as sql:
            change = update(users).where(is_current).values(password_hash=new_hash, password_changed_at=now)
            if (await sql.execute(change)).rowcount == 0:
                return None
            ended = await sql.execute(update(sign_ins).where(is_active).values(revoked_at=now))
            await sql.execute(_attempts_of(user))
        return ended.rowcount

    async def replace_hash(self, user_id: UUID, old: str, new: str) -> None:
        """Store another hash of the current password, unless the password has been changed in the meantime."""
        is_old = (users.c.id == user_id) & (users.c.password_hash == old)
        async with self._database.statement() as sql:
            await sql.execute(update(users).where(is_old).values(password_hash=new))

    async def add_session(
        self, credentials: Credentials, session_id: UUID, token_id: UUID, *, lifetime: timedelta
    ) -> Session | None:
        """Insert a session with its first refresh token, and delete the login attempts with the user name.

        Returns:
            The session. None if the password has been changed since it was verified: nothing was done.
        """
        is_current = (users.c.id == credentials.user.id) & (
            users.c.password_changed_at == credentials.password_changed_at
        )
        values = select(literal(session_id), users.c.id, func.now() + lifetime).where(is_current)
        new = insert(sign_ins).from_select(["id", "user_id", "expires_at"], values.with_for_update(read=True))
        async with self._database.transaction() as sql:
            row = (await sql.execute(new.returning(sign_ins))).one_or_none()
            if row is None:
                return None
            await sql.execute(insert(refresh_tokens).values(id=token_id, sign_in=session_id))
            await sql.execute(_attempts_of(credentials.user))
        return _session_from_row(row)

    async def rotate_token(
        self, token_id: UUID, successor_id: UUID, *, lifetime: timedelta, grace_seconds: float
    ) -> tuple[RotationResult, Session, User] | None:
        """Use a refresh token, and return the result with the token's session and user; None if there is no such token.

        The row of the session is locked first, so tokens of one session are used one after the other.

        Args:
            token_id: id of the token.
            successor_id: id that the successor gets if the token has no successor yet.
            lifetime: maximum remaining lifetime of the session. A later expiry is replaced.
            grace_seconds: see `rotate`.
        """
        of_token = select(refresh_tokens.c.sign_in).where(refresh_tokens.c.id == token_id).scalar_subquery()
        async with self._database.transaction() as sql:
            locked = await sql.execute(select(sign_ins).where(sign_ins.c.id == of_token).with_for_update())
            row = locked.one_or_none()
            if row is None:
                return None
            now = await _now(sql)
            session = _session_from_row(row).bounded(now, lifetime)
            if session.expires_at != row.expires_at:
                of_session = sign_ins.c.id == session.id
                await sql.execute(update(sign_ins).where(of_session).values(expires_at=session.expires_at))
            stored = (await sql.execute(select(refresh_tokens).where(refresh_tokens.c.id == token_id))).one()
            token = RefreshToken(stored.id, stored.sign_in, stored.replaced_by, stored.replaced_at)
            user = _user_from_row((await sql.execute(select(users).where(users.c.id == session.user_id))).one())
            result = rotate(session, token, now, successor_id=successor_id, grace_seconds=grace_seconds)
            await _save_rotation(sql, result)
        return result, session, user

    async def revoke_session(self, token_id: UUID) -> None:
        """Revoke the session of a refresh token, if the token exists and the session is not revoked yet."""
        of_token = select(refresh_tokens.c.sign_in).where(refresh_tokens.c.id == token_id).scalar_subquery()
        is_active = (sign_ins.c.id == of_token) & sign_ins.c.revoked_at.is_(None)
        async with self._database.statement() as sql:
            await sql.execute(update(sign_ins).where(is_active).values(revoked_at=func.now()))

    async def bound_expiry(self, lifetime: timedelta, *, limit: int) -> bool:
        """Let sessions end after `lifetime` that would end later, because the clock was ahead at the login.

        Args:
            lifetime: maximum remaining lifetime of a session.
            limit: maximum number of sessions.

        Returns:
            Whether there may be more sessions to change.
        """
        latest = func.now() + lifetime
        too_late = select(sign_ins.c.id).where(sign_ins.c.expires_at > latest).limit(limit)
        of_sessions = sign_ins.c.id.in_(too_late.with_for_update(skip_locked=True))
        async with self._database.statement() as sql:
            changed = await sql.execute(update(sign_ins).where(of_sessions).values(expires_at=latest))
        return changed.rowcount >= limit

    async def prune(self, limit: int) -> bool:
        """Delete expired sessions with their tokens, and login attempts that are older than a day.

        Args:
            limit: maximum number of rows of each kind.

        Returns:
            Whether there may be more rows to delete.
        """
        expired = select(sign_ins.c.id).where(sign_ins.c.expires_at < func.now()).limit(limit)
        old = select(attempts.c.username).where(attempts.c.locked_until < func.now() - _ATTEMPTS_TTL).limit(limit)
        async with self._database.statement() as sql:
            sessions = await sql.execute(delete(sign_ins).where(sign_ins.c.id.in_(expired)))
            names = await sql.execute(delete(attempts).where(attempts.c.username.in_(old)))
        return limit in {sessions.rowcount, names.rowcount}


async def _save_rotation(sql: AsyncConnection, result: RotationResult) -> None:
    match result:
        case Rotated(token, successor):
            of_token = refresh_tokens.c.id == token.id
            replaced = {"replaced_by": token.replaced_by, "replaced_at": token.replaced_at}
            await sql.execute(update(refresh_tokens).where(of_token).values(replaced))
            await sql.execute(insert(refresh_tokens).values(id=successor.id, sign_in=successor.session_id))
        case ReuseDetected(session):
            of_session = sign_ins.c.id == session.id
            await sql.execute(update(sign_ins).where(of_session).values(revoked_at=session.revoked_at))


async def _now(sql: AsyncConnection) -> datetime:
    """Return the current time.

    SQL's `now()` is the start of the transaction. If the transaction has waited for a lock since then, this time is too
    early.
    """
    now: datetime = (await sql.execute(select(func.clock_timestamp()))).scalar_one()
    return now


def _attempts_of(user: User) -> Delete:
    return delete(attempts).where(attempts.c.username == fold_username(user.username))


def _credentials_from_row(row: Row[Any], read_at: datetime) -> Credentials:
    return Credentials(_user_from_row(row), row.password_hash, row.password_changed_at, read_at)


def _user_from_row(row: Row[Any]) -> User:
    return User(row.id, row.username, Role(row.role), row.created_at)


def _session_from_row(row: Row[Any]) -> Session:
    return Session(row.id, row.user_id, row.expires_at, row.revoked_at)
