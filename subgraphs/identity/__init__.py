"""Identity subgraph: users, logins, and the tokens that all services accept."""
