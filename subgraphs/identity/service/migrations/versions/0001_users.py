"""Create the tables of users, login attempts, sessions and refresh tokens."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE users (
            id uuid PRIMARY KEY,
            username text NOT NULL CONSTRAINT users_username UNIQUE
                CONSTRAINT users_username_form CHECK (username ~ '^[a-z][a-z0-9._-]{2,63}$'),
            password_hash text NOT NULL CONSTRAINT users_password_hash CHECK (password_hash LIKE '$argon2id$%'),
            role text NOT NULL DEFAULT 'CUSTOMER'
                CONSTRAINT users_role CHECK (role IN ('CUSTOMER', 'OPERATOR', 'ADMIN')),
            created_at timestamptz NOT NULL DEFAULT now(),
            password_changed_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("""
        CREATE TABLE attempts (
            username text PRIMARY KEY,
            count integer NOT NULL DEFAULT 0,
            locked_until timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("CREATE INDEX attempts_locked_until ON attempts (locked_until)")
    op.execute("""
        CREATE TABLE sign_ins (
            id uuid PRIMARY KEY,
            user_id uuid NOT NULL REFERENCES users (id),
            created_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL,
            revoked_at timestamptz
        )
    """)
    op.execute("CREATE INDEX sign_ins_expiry ON sign_ins (expires_at)")
    op.execute("""
        CREATE TABLE refresh_tokens (
            id uuid PRIMARY KEY,
            sign_in uuid NOT NULL REFERENCES sign_ins (id) ON DELETE CASCADE,
            issued_at timestamptz NOT NULL DEFAULT now(),
            replaced_by uuid CONSTRAINT refresh_tokens_successor UNIQUE,
            replaced_at timestamptz,
            CONSTRAINT refresh_tokens_replaced CHECK ((replaced_by IS NULL) = (replaced_at IS NULL))
        )
    """)
    op.execute("CREATE INDEX refresh_tokens_sign_in ON refresh_tokens (sign_in)")
    comments = {
        "users.id": "the sub of the user''s tokens",
        "users.password_hash": "Argon2id, with its salt and its parameters",
        "attempts.username": "of a user or of nobody",
        "attempts.count": "since the name was last signed in by",
        "attempts.locked_until": "or when the last one began",
        "sign_ins.expires_at": "of every token that comes from it",
        "sign_ins.revoked_at": "signed out, or a token was used twice",
        "refresh_tokens.id": "worth nothing without its seal",
        "refresh_tokens.replaced_by": "its successor, made by its first use",
    }
    for column, comment in comments.items():
        op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")


def downgrade() -> None:
    op.execute("DROP TABLE refresh_tokens, sign_ins, attempts, users")
