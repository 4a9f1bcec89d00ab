"""Refusal to compile an operation."""


class NotCompilable(Exception):
    """graphql-core must execute this operation. No resolver has been called."""
