"""History checker: verifies the responses to concurrent clients against the rows of the ledger.

`workload` sends requests, `calls` records them, `storage` writes records of several processes to disk, and `rows`
reads the ledger at the end. `model` replays the transfers; `checker` and `reader_checks` compare the records with the
rows. Only `rows` uses SQL. The checks are pure functions of values.
"""
