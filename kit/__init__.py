"""Infrastructure that all processes share.

- `runtime`: start and stop of a process, settings, background tasks, retries
- `auth`: principals, roles, access rules, tokens and keys
- `rpc`: gRPC servers and clients, mutual TLS, errors as statuses, the request context
- `http`: HTTP server and admin interface
- `db`: PostgreSQL pools and migrations
- `telemetry`: logs, metrics and traces
- `integrity`: integrity checks of a service's data

It uses `wallet` (money, errors) and defines the roles of users, but has no code about accounts, transfers or top-ups.
"""
