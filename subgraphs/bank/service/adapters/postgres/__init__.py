"""SQL of the ledger, executed with asyncpg."""
