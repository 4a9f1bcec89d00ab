"""Description of a PostgreSQL schema, to compare two schemas."""

import asyncpg

# Constraints, indexes, columns (type, NOT NULL, default, identity, comment) and storage options of the tables.
# The comparison of Alembic covers only a part of them.
_SCHEMA = """
    SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    UNION ALL
    SELECT 'column', c.oid::regclass::text, a.attname,
           concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                     pg_get_expr(d.adbin, d.adrelid), nullif(a.attidentity, ''), col_description(c.oid, a.attnum))
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
    UNION ALL
    SELECT 'options', oid::regclass::text, '', array_to_string(reloptions, ',') FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
"""


async def read_schema(sql: asyncpg.Connection) -> set[tuple[str, ...]]:
    """Return constraints, indexes, columns and storage options of the schema `public`."""
    return {tuple(row) for row in await sql.fetch(_SCHEMA)}
