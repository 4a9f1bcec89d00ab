"""Create the table of words on transfers: descriptions, references and metadata. See ADR 47.

A transfer without words has no row. Only the description can change: it can be erased.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE transfer_words (
            transfer_id uuid PRIMARY KEY,
            sender_id uuid NOT NULL,
            description text,
            reference text,
            is_reference_unique boolean NOT NULL DEFAULT false,
            metadata jsonb,
            created_by text NOT NULL
        )
    """)
    op.execute("COMMENT ON COLUMN transfer_words.description IS 'text for both sides; null: none, or erased'")
    op.execute("COMMENT ON COLUMN transfer_words.reference IS 'the sender''s own id of the transfer'")
    op.execute("COMMENT ON COLUMN transfer_words.metadata IS 'data of the creator, for the creator alone'")
    op.execute("COMMENT ON COLUMN transfer_words.created_by IS 'issuer|subject of the creator'")
    op.execute("""
        CREATE INDEX transfer_words_reference ON transfer_words (sender_id, reference) WHERE reference IS NOT NULL
    """)
    op.execute("""
        CREATE UNIQUE INDEX transfer_words_unique_reference ON transfer_words (sender_id, reference)
            WHERE is_reference_unique
    """)
    op.execute("""
        CREATE TRIGGER transfer_words_append_only BEFORE DELETE OR TRUNCATE OR UPDATE OF
            transfer_id, sender_id, reference, is_reference_unique, metadata, created_by
            ON transfer_words FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.execute("""
        CREATE FUNCTION require_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.description IS NOT NULL THEN
                RAISE EXCEPTION 'a description can only be erased' USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER transfer_words_require_erasure BEFORE UPDATE ON transfer_words
            FOR EACH ROW EXECUTE FUNCTION require_erasure()
    """)


def downgrade() -> None:
    op.execute("DROP TABLE transfer_words")
    op.execute("DROP FUNCTION require_erasure")
