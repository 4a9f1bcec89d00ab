"""All SQL of the ledger.

Statements go to PostgreSQL through asyncpg as they stand here.
"""
