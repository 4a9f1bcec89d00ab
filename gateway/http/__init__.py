"""HTTP concerns that REST and GraphQL share. `middleware.py` shows the order in which they apply."""
