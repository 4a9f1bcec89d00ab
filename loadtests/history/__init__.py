"""The history checker: what concurrent clients asked and were answered, judged against the ledger's own rows.

`load` asks, `calls` records, `rows` reads the ledger at the end, `model` replays it, `judge` compares. Only `rows` has
SQL; the judge is a function of values.
"""
