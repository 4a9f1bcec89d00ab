"""The `wallet` command line."""
