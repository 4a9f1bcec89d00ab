"""The ledger: accounts, transfers and deposits."""
