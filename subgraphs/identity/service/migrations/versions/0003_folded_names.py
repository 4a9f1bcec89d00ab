"""User names are unique without regard to case and may have upper-case letters; sessions are found by their user.

No two existing names differ only by case, because before this migration the table accepts lower-case names only.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COMMENTS = {
    "users.username": "name as it was registered; compared without regard to case",
    "attempts.username": "folded name of the attempts, whether or not the user exists",
    "sign_ins.revoked_at": "time of the logout, the detected token reuse or the password change",
}
_OLD_COMMENTS = {
    "attempts.username": "name of the login attempts, whether or not the user exists",
    "sign_ins.revoked_at": "time of the logout or of the detected token reuse",
}


def upgrade() -> None:
    op.execute("""
        ALTER TABLE users DROP CONSTRAINT users_username_form,
            ADD CONSTRAINT users_username_form CHECK (username ~ '^[A-Za-z][A-Za-z0-9._-]{2,63}$')
    """)
    op.execute('CREATE UNIQUE INDEX users_username_folded ON users (lower(username COLLATE "C"))')
    op.execute("CREATE INDEX sign_ins_user_id ON sign_ins (user_id)")
    for column, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")


def downgrade() -> None:
    """Rewrite the names in lower case, as the previous release requires. They stay unique: the index ignores case."""
    op.execute("ALTER TABLE users DROP CONSTRAINT users_username_form")
    op.execute('UPDATE users SET username = lower(username COLLATE "C") WHERE username <> lower(username COLLATE "C")')
    op.execute("""
        ALTER TABLE users ADD CONSTRAINT users_username_form CHECK (username ~ '^[a-z][a-z0-9._-]{2,63}$')
    """)
    op.execute("DROP INDEX users_username_folded, sign_ins_user_id")
    op.execute("COMMENT ON COLUMN users.username IS NULL")
    for column, comment in _OLD_COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")
