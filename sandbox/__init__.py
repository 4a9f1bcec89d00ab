"""A card acquirer that moves no money, for development and tests."""
