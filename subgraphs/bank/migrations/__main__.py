"""`python -m subgraphs.bank.migrations`: brings the database to the newest schema. Safe to run at any time."""

import os

from kit.migrations import upgrade

upgrade("subgraphs.bank.migrations", os.environ["BANK_DATABASE_URL"])
