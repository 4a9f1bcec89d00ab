"""`wallet …`: the operator's commands."""
