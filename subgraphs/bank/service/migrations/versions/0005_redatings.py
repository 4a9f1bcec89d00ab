"""Add the table `redatings`. A transaction may change the date of a transfer if it records the change there."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE redatings (
            transfer_id uuid NOT NULL,
            old_created_at timestamptz NOT NULL,
            new_created_at timestamptz NOT NULL,
            redated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            redated_by text NOT NULL,
            CONSTRAINT redatings_earlier CHECK (new_created_at < old_created_at),
            PRIMARY KEY (transfer_id, redated_at)
        )
    """)
    op.execute("COMMENT ON COLUMN redatings.redated_by IS 'issuer|subject of the administrator'")
    op.execute("""
        CREATE TRIGGER redatings_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON redatings
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.execute("DROP TRIGGER transfers_append_only ON transfers")
    op.execute("""
        CREATE TRIGGER transfers_append_only BEFORE DELETE OR TRUNCATE OR UPDATE OF
            id, kind, sender_id, recipient_id, amount, currency, status, idempotency_key,
            sender_version, recipient_version, descriptor
            ON transfers FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.execute("""
        CREATE FUNCTION require_redating() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT EXISTS (
                SELECT FROM redatings
                WHERE transfer_id = OLD.id AND old_created_at = OLD.created_at AND new_created_at = NEW.created_at
                      AND xmin = pg_current_xact_id()::xid
            ) THEN
                RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING
                    ERRCODE = 'restrict_violation', HINT = 'Only wallet redate changes dates.';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER transfers_require_redating BEFORE UPDATE ON transfers
            FOR EACH ROW EXECUTE FUNCTION require_redating()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER transfers_require_redating ON transfers")
    op.execute("DROP TRIGGER transfers_append_only ON transfers")
    op.execute("""
        CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfers
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.execute("DROP FUNCTION require_redating")
    op.execute("DROP TABLE redatings")
