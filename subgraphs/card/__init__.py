"""Top-ups by card: a saga over the card acquirer and the ledger."""
