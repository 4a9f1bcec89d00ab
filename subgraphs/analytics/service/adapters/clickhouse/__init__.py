"""All SQL of the history: every statement that ClickHouse is asked to run."""
