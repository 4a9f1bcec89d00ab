"""Describes the columns in plain words. Comments have no effect on the service, so a downgrade keeps them."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COMMENTS = {
    "users.id": "subject (sub) of the user''s tokens",
    "users.password_hash": "Argon2id hash with its salt and parameters",
    "attempts.username": "name of the login attempts, whether or not the user exists",
    "attempts.count": "number of attempts since the last login",
    "attempts.locked_until": "end of the lock; start of the last attempt if it did not lock the name",
    "sign_ins.expires_at": "expiry of the session and of all its refresh tokens",
    "sign_ins.revoked_at": "time of the logout or of the detected token reuse",
    "refresh_tokens.id": "not a valid token without its HMAC",
    "refresh_tokens.replaced_by": "successor, created by the first use",
}


def upgrade() -> None:
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")


def downgrade() -> None:
    pass
