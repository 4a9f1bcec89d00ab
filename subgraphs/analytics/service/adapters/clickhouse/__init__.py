"""All SQL statements of the history."""
