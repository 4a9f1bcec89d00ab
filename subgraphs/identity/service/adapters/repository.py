"""All SQL of the identity service: users and sign-ins in and out as domain values. Every time is the database's."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db.database import Database
from subgraphs.identity.service.adapters.tables import attempts, refresh_tokens, sign_ins, users
from subgraphs.identity.service.domain import model as domain
from subgraphs.identity.service.domain.model import (
    Attempts,
    LockOut,
    RefreshToken,
    Replaced,
    Reused,
    Role,
    SignIn,
    Use,
    User,
)
from wallet.errors import TooManyAttempts, UsernameTaken

_FORGET_ATTEMPTS: Final = timedelta(days=1)
"""After so long without another one, a name's attempts are forgotten."""

open_database: Final = partial(Database.open, service="identity", label="the users' database")
"""The service's database, by its URL and the most connections to it."""


class Repository:
    """The users and their sign-ins.

    Every method raises Unavailable when the database is away, or goes away in the middle; what was being written may or
    may not be then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ping(self) -> None:
        """Returns when the database answers, and has the tables."""
        async with self._database.statement() as sql:
            await sql.execute(select(users.c.id).limit(1))

    async def add(self, id_: UUID, username: str, password_hash: str) -> User:
        """A new user, a customer.

        Raises:
            UsernameTaken: there is one of that name.
        """
        new = postgresql.insert(users).values(id=id_, username=username, password_hash=password_hash)
        async with self._database.statement() as sql:
            added = await sql.execute(new.on_conflict_do_nothing(constraint="users_username").returning(users))
            row = added.one_or_none()
        if row is None:
            raise UsernameTaken(username)
        return _user(row)

    async def get(self, ids: Iterable[UUID]) -> dict[UUID, User]:
        """Those of the users that exist."""
        async with self._database.statement() as sql:
            found = await sql.execute(select(users).where(users.c.id.in_(list(ids))))
            return {row.id: _user(row) for row in found}

    async def grant(self, username: str, role: Role) -> User | None:
        """The user of that name, with that role from now on; None if there is none."""
        given = update(users).where(users.c.username == username).values(role=role).returning(users)
        async with self._database.statement() as sql:
            row = (await sql.execute(given)).one_or_none()
        return None if row is None else _user(row)

    async def attempt(self, username: str, lock_out: LockOut) -> tuple[User, str] | None:
        """Begins an attempt to sign in, which counts as a wrong one until `sign_in`: the user of that name with the
        hash of their password, or None if there is none. Of several at once each is counted before it goes on.

        Raises:
            TooManyAttempts: the name is locked; the attempt does not count.
        """
        # An update that changes nothing: whether the row is new or not, it is locked, and as nobody else can change it.
        locked = postgresql.insert(attempts).values(username=username)
        locked = locked.on_conflict_do_update(index_elements=["username"], set_={"count": attempts.c.count})
        async with self._database.transaction() as sql:
            row = (await sql.execute(locked.returning(attempts))).one()
            now = await _now(sql)
            known = Attempts(row.count, row.locked_until)
            more = known.one_more(now, lock_out)
            if more is None:
                raise TooManyAttempts(str(known.seconds_left(now)))
            counted = update(attempts).where(attempts.c.username == username)
            await sql.execute(counted.values(count=more.count, locked_until=more.locked_until))
            found = (await sql.execute(select(users).where(users.c.username == username))).one_or_none()
        return None if found is None else (_user(found), found.password_hash)

    async def rehash(self, user_id: UUID, old: str, new: str) -> None:
        """Keeps another hash of the same password, unless it was changed meanwhile."""
        is_old = (users.c.id == user_id) & (users.c.password_hash == old)
        async with self._database.statement() as sql:
            await sql.execute(update(users).where(is_old).values(password_hash=new))

    async def sign_in(self, user: User, sign_in_id: UUID, token_id: UUID, *, lifetime: timedelta) -> SignIn:
        """A sign-in with its first refresh token. What was attempted at the name before is forgotten."""
        new = insert(sign_ins).values(id=sign_in_id, user_id=user.id, expires_at=func.now() + lifetime)
        async with self._database.transaction() as sql:
            await sql.execute(delete(attempts).where(attempts.c.username == user.username))
            made = (await sql.execute(new.returning(sign_ins))).one()
            await sql.execute(insert(refresh_tokens).values(id=token_id, sign_in=sign_in_id))
        return _sign_in(made)

    async def use(self, token_id: UUID, successor_id: UUID, *, grace_seconds: float) -> tuple[Use, SignIn, User] | None:
        """Uses a refresh token, which may have happened before: what comes of it, or None if there is no such token.

        Those of one sign-in are used one after the other: its row is locked first, and what is read after that stays.
        """
        of_token = select(refresh_tokens.c.sign_in).where(refresh_tokens.c.id == token_id).scalar_subquery()
        async with self._database.transaction() as sql:
            locked = await sql.execute(select(sign_ins).where(sign_ins.c.id == of_token).with_for_update())
            row = locked.one_or_none()
            if row is None:
                return None
            sign_in = _sign_in(row)
            found = (await sql.execute(select(refresh_tokens).where(refresh_tokens.c.id == token_id))).one()
            token = RefreshToken(found.id, found.sign_in, found.replaced_by, found.replaced_at)
            user = _user((await sql.execute(select(users).where(users.c.id == sign_in.user_id))).one())
            use = domain.used(sign_in, token, await _now(sql), successor_id=successor_id, grace_seconds=grace_seconds)
            await _keep(sql, use)
        return use, sign_in, user

    async def revoke(self, token_id: UUID) -> None:
        """Ends the sign-in that a refresh token came from, if there is such a token and it has not ended yet."""
        of_token = select(refresh_tokens.c.sign_in).where(refresh_tokens.c.id == token_id).scalar_subquery()
        open_ = (sign_ins.c.id == of_token) & sign_ins.c.revoked_at.is_(None)
        async with self._database.statement() as sql:
            await sql.execute(update(sign_ins).where(open_).values(revoked_at=func.now()))

    async def prune(self, limit: int) -> bool:
        """Forgets sign-ins that have expired, with their tokens, and attempts of long ago, so many of each at most.
        Whether there may be more.
        """
        over = select(sign_ins.c.id).where(sign_ins.c.expires_at < func.now()).limit(limit)
        old = select(attempts.c.username).where(attempts.c.locked_until < func.now() - _FORGET_ATTEMPTS).limit(limit)
        async with self._database.statement() as sql:
            ended = await sql.execute(delete(sign_ins).where(sign_ins.c.id.in_(over)))
            forgotten = await sql.execute(delete(attempts).where(attempts.c.username.in_(old)))
        return limit in {ended.rowcount, forgotten.rowcount}


async def _keep(sql: AsyncConnection, use: Use) -> None:
    match use:
        case Replaced(token, successor):
            of_token = refresh_tokens.c.id == token.id
            replaced = {"replaced_by": token.replaced_by, "replaced_at": token.replaced_at}
            await sql.execute(update(refresh_tokens).where(of_token).values(replaced))
            await sql.execute(insert(refresh_tokens).values(id=successor.id, sign_in=successor.sign_in))
        case Reused(sign_in):
            of_sign_in = sign_ins.c.id == sign_in.id
            await sql.execute(update(sign_ins).where(of_sign_in).values(revoked_at=sign_in.revoked_at))


async def _now(sql: AsyncConnection) -> datetime:
    """When this is asked, rather than when the transaction began: it may have waited since."""
    now: datetime = (await sql.execute(select(func.clock_timestamp()))).scalar_one()
    return now


def _user(row: Row[Any]) -> User:
    return User(row.id, row.username, Role(row.role), row.created_at)


def _sign_in(row: Row[Any]) -> SignIn:
    return SignIn(row.id, row.user_id, row.expires_at, row.revoked_at)
