"""Columns of a top-up, and conversion of its rows to the domain's value."""

from typing import Final

import asyncpg

from subgraphs.card.service.domain.cards import Brand, CardToken
from subgraphs.card.service.domain.top_up import IdempotencyKey, Status, Step, TopUp
from wallet.money import Money

TOP_UP_COLUMNS: Final = """
    id, principal, idempotency_key, fingerprint, owner_id, account_id, amount, currency, card_token, card_brand,
    card_last_four, card_digest, status, step, attempts, retries, failure, payment_id, transfer_id, review, created_at,
    updated_at, version
"""
TOP_UP: Final = f"SELECT {TOP_UP_COLUMNS} FROM top_ups"  # noqa: S608  only constants


def top_up_from_row(row: asyncpg.Record) -> TopUp:
    """Convert a row with `TOP_UP_COLUMNS`."""
    return TopUp(
        row["id"],
        IdempotencyKey(row["principal"], row["idempotency_key"]),
        row["fingerprint"],
        row["owner_id"],
        row["account_id"],
        Money(row["amount"], row["currency"]),
        CardToken(row["card_token"], Brand(row["card_brand"]), row["card_last_four"]),
        row["card_digest"],
        Status(row["status"]),
        None if row["step"] is None else Step(row["step"]),
        row["attempts"],
        row["retries"],
        row["failure"],
        row["payment_id"],
        row["transfer_id"],
        row["review"],
        row["created_at"],
        row["updated_at"],
        row["version"],
    )
