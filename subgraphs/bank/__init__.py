"""Bank: the ledger of accounts, transfers and deposits."""
