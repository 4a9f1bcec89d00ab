"""`python -m subgraphs.card.migrations`: brings the database to the newest schema. Safe to run at any time."""

import os

from kit.migrations import upgrade

upgrade("subgraphs.card.migrations", os.environ["CARD_DATABASE_URL"])
