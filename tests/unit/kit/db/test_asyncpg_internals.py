"""Private parts of asyncpg that `kit.db.asyncpg_internals` depends on."""

import inspect

import asyncpg

from kit.db.asyncpg_internals import UncancelledConnection


def test_asyncpg_still_has_the_method_that_sends_cancel_requests() -> None:
    replaced = inspect.signature(getattr(asyncpg.Connection, "_cancel_current_command"))  # noqa: B009  absent in its types
    replacement = inspect.signature(UncancelledConnection._cancel_current_command)
    assert list(replaced.parameters) == list(replacement.parameters)
