"""Content of the dashboards. Run `make gen` after a change."""

from typing import Final

from deploy.grafana.panels import Dashboard, Panel, mean, quantile, quantiles, rate, share, stat, time_series

_RPC: Final = "wallet_rpc_duration_seconds"
_HTTP: Final = "wallet_gateway_request_duration_seconds"
_GRAPH: Final = "wallet_gateway_operation_duration_seconds"
_TRANSFERS: Final = 'method=~"/wallet.bank.v1.BankService/(Batch)?TransferMoney"'
_TRANSFER: Final = '{method="/wallet.bank.v1.BankService/TransferMoney"}'
_SERVER_ERRORS: Final = 'code=~"UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|UNKNOWN"'
_BATCH: Final = "wallet_bank_batch_size"
_FORWARDED: Final = "wallet_transfers_per_call"
_USED: Final = "wallet_database_connections_in_use"
_LIMIT: Final = "wallet_database_connections_limit"
_PROCESS: Final = "{{job}} {{instance}}"


def connections(job: str) -> Panel:
    """Return the panel of a service's connection pool."""
    of_job = f'{{job="{job}"}}'
    queries = {"{{instance}}": f"{_USED}{of_job}", "{{instance}}, limit": f"{_LIMIT}{of_job}"}
    return time_series("Database connections", "short", queries)


def integrity(job: str) -> list[Panel]:
    """Return the panels of a service's last integrity check."""
    return [
        stat("Violations in the last integrity check", "short", f"max(wallet_{job}_integrity_violations)", bad=1),
        stat(
            "Time since the last integrity check",
            "s",
            f"time() - (max(wallet_{job}_integrity_finished_timestamp_seconds) > 0)",
        ),
    ]


DASHBOARDS: Final = (
    Dashboard(
        "system",
        "Wallet",
        ("ServiceDown", "RequestsFail", "ClientsRefused", "ConnectionsExhausted", "CertificateExpires", "LogLinesLost"),
        {
            "Now": [
                stat("Replicas", "short", "sum by (job) (up)", "{{job}}", bad=1, good_above=True),
                stat("Firing alerts", "short", 'count(ALERTS{alertstate="firing"}) or vector(0)', bad=1),
                stat("Transfer calls", "ops", rate(f"{_RPC}_count{{{_TRANSFERS}}}")),
                stat(
                    "Failed requests",
                    "percentunit",
                    share(f'{_HTTP}_count{{status="5xx"}}', f"{_HTTP}_count"),
                    bad=0.05,
                ),
            ],
            "Calls between services": [
                time_series("Calls", "reqps", {"{{job}}": rate(f"{_RPC}_count", "job")}),
                time_series(
                    "Server errors",
                    "percentunit",
                    {"{{job}}": share(f"{_RPC}_count{{{_SERVER_ERRORS}}}", f"{_RPC}_count", "job")},
                    bad=0.05,
                ),
                time_series("Duration of gRPC calls, 99 %", "s", {"{{job}}": quantile(0.99, _RPC, by="job")}),
                time_series(
                    "Calls refused before they were sent",
                    "reqps",
                    {"{{method}}: {{reason}}": rate("wallet_calls_refused_total", "method, reason")},
                ),
                time_series(
                    "Open circuit breakers",
                    "short",
                    {"{{method}}": 'sum by (method) (wallet_call_circuit{wallet_call_circuit="opened"})'},
                ),
                time_series(
                    "Transfers per call from the gateway to the bank, lone transfers excluded",
                    "short",
                    {"mean": mean(_FORWARDED), "99 %": quantile(0.99, _FORWARDED)},
                ),
            ],
            "Processes": [
                time_series(
                    "CPU",
                    "percentunit",
                    {_PROCESS: "rate(process_cpu_seconds_total[$__rate_interval])"},
                    bad=1,
                ),
                time_series("Memory", "bytes", {_PROCESS: "process_resident_memory_bytes"}),
                time_series(
                    "Database connections",
                    "percentunit",
                    {_PROCESS: f"{_USED} / ({_LIMIT} > 0)"},
                    bad=0.9,
                ),
                time_series("Lost log lines", "short", {_PROCESS: "increase(wallet_log_lines_lost_total[10m])"}, bad=1),
                time_series("Dropped spans", "short", {_PROCESS: "increase(wallet_spans_dropped_total[10m])"}, bad=1),
            ],
            "Lifetimes": [
                time_series("Uptime", "s", {_PROCESS: "time() - process_start_time_seconds"}),
                time_series(
                    "Time until the certificate expires",
                    "s",
                    {_PROCESS: "(wallet_tls_certificate_expiry_timestamp_seconds > 0) - time()"},
                    bad=14 * 86_400,
                    good_above=True,
                ),
                time_series("Version", "short", {"{{job}} {{version}}": "sum by (job, version) (wallet_build_info)"}),
            ],
        },
    ),
    Dashboard(
        "ledger",
        "Wallet · Ledger",
        ("IntegrityBroken", "TransfersFail", "TransfersSlow", "ConnectionsExhausted"),
        {
            "Now": [
                stat("Transfer calls", "ops", rate(f"{_RPC}_count{{{_TRANSFERS}}}")),
                stat(
                    "Failed transfer calls, one hour",
                    "percentunit",
                    "wallet:transfer_failures:ratio_rate1h or vector(0)",
                    bad=0.001,
                ),
                stat("Duration of a transfer, 99 %", "s", quantile(0.99, _RPC, _TRANSFER), bad=0.5),
                *integrity("bank"),
            ],
            "Transfers": [
                time_series(
                    "Transfer calls by status code", "ops", {"{{code}}": rate(f"{_RPC}_count{{{_TRANSFERS}}}", "code")}
                ),
                time_series("Duration of a transfer", "s", quantiles(_RPC, _TRANSFER), bad=0.5),
                time_series(
                    "All calls by method", "ops", {"{{method}}": rate(f'{_RPC}_count{{job="bank"}}', "method")}
                ),
            ],
            "Batches": [
                time_series("Commands per batch", "short", {"mean": mean(_BATCH), "99 %": quantile(0.99, _BATCH)}),
                time_series(
                    "Wait time of the first command of a batch", "s", quantiles("wallet_bank_batch_wait_seconds")
                ),
                time_series(
                    "Rejected commands, and commits with an unknown outcome",
                    "ops",
                    {
                        "rejected: queue full": rate("wallet_bank_commands_rejected_total"),
                        "commit outcome unknown": rate("wallet_bank_commit_outcomes_unknown_total"),
                    },
                ),
                connections("bank"),
                time_series(
                    "Reads from the read replica", "ops", {"{{how}}": rate("wallet_bank_replica_reads_total", "how")}
                ),
            ],
        },
    ),
    Dashboard(
        "pipeline",
        "Wallet · Pipeline",
        (
            "OutboxStuck",
            "OutboxWithoutLeader",
            "ConsumerLags",
            "ConsumerStalled",
            "HistoryIncomplete",
            "EventsUnreadable",
            "LedgerRestored",
            "IntegrityBroken",
        ),
        {
            "Now": [
                stat("Outbox rows", "short", "max(wallet_bank_outbox_backlog)"),
                stat("Age of the oldest outbox row", "s", "max(wallet_bank_outbox_age_seconds)", bad=60),
                stat("Outbox leaders", "short", "sum(wallet_bank_outbox_is_leader)", bad=1, good_above=True),
                stat("Consumer lag", "short", "sum(wallet_analytics_consumer_lag)", bad=10_000),
                stat("Incomplete histories", "short", "max(wallet_analytics_accounts_incomplete)", bad=1),
                stat("Stopped consumers", "short", "sum(wallet_analytics_consumer_stopped)", bad=1),
            ],
            "From ledger to history": [
                time_series(
                    "Events",
                    "ops",
                    {
                        "published": rate("wallet_bank_events_published_total"),
                        "stored": rate("wallet_analytics_events_consumed_total"),
                        "repaired": rate("wallet_analytics_events_repaired_total"),
                        "unreadable": rate("wallet_analytics_dead_letters_total"),
                    },
                ),
                time_series("Outbox rows", "short", {"operations": "max(wallet_bank_outbox_backlog)"}),
                time_series("Consumer lag", "short", {"{{instance}}": "wallet_analytics_consumer_lag"}, bad=10_000),
                time_series(
                    "Time since the consumer stored messages, or had none to store",
                    "s",
                    {"{{instance}}": "time() - (wallet_analytics_consumer_progress_timestamp_seconds > 0)"},
                    bad=120,
                ),
                time_series(
                    "Partitions of the consumer", "short", {"{{instance}}": "wallet_analytics_consumer_partitions"}
                ),
            ],
            "History": [
                time_series(
                    "Rows of the history",
                    "ops",
                    {
                        "inserted": rate("wallet_analytics_rows_inserted_total"),
                        "removed by replay": rate("wallet_analytics_rows_removed_total"),
                        "copied by replay": rate("wallet_analytics_operations_replayed_total"),
                    },
                ),
                time_series(
                    "Time since the last comparison with the bank",
                    "s",
                    {"{{instance}}": "time() - (wallet_analytics_compared_timestamp_seconds > 0)"},
                    bad=600,
                ),
                time_series("Open operation streams", "short", {"{{instance}}": "wallet_analytics_subscribers"}),
                time_series(
                    "Duration of gRPC calls, 99 %",
                    "s",
                    {"{{method}}": quantile(0.99, _RPC, '{job="analytics"}', by="method")},
                ),
            ],
            "Integrity": [
                *integrity("analytics"),
                stat(
                    "Operations in transit in the last integrity check",
                    "short",
                    "max(wallet_analytics_integrity_pending)",
                ),
            ],
        },
    ),
    Dashboard(
        "top-ups",
        "Wallet · Top-ups",
        (
            "TopUpsNeedReview",
            "TopUpsStuck",
            "AcquirerCircuitOpen",
            "CardTesting",
            "IntegrityBroken",
            "ConnectionsExhausted",
        ),
        {
            "Now": [
                stat("Top-ups that need a review", "short", "max(wallet_card_top_ups_to_review)", bad=1),
                stat("Top-ups that are not final", "short", "max by (status) (wallet_card_top_ups_open)", "{{status}}"),
                stat("Age of the oldest top-up in progress", "s", "max(wallet_card_top_ups_oldest_seconds)", bad=900),
                stat(
                    "Acquirer circuit closed",
                    "short",
                    'min(wallet_card_acquirer_circuit{wallet_card_acquirer_circuit="closed"})',
                    bad=1,
                    good_above=True,
                ),
                *integrity("card"),
            ],
            "Outcomes": [
                time_series(
                    "Top-ups by new status", "ops", {"{{status}}": rate("wallet_card_top_ups_total", "status")}
                ),
                time_series(
                    "Steps of top-ups by result",
                    "ops",
                    {"{{step}} {{result}}": rate("wallet_card_steps_total", "step, result")},
                ),
                time_series(
                    "Duration of gRPC calls, 99 %",
                    "s",
                    {"{{method}}": quantile(0.99, _RPC, '{job="card"}', by="method")},
                ),
            ],
            "Declined cards": [
                stat(
                    "Customers, addresses and cards that are refused",
                    "short",
                    "max by (limit) (wallet_card_decline_blocks)",
                    "{{limit}}",
                ),
                time_series(
                    "Top-ups refused, by limit",
                    "ops",
                    {"{{limit}}": rate("wallet_card_top_ups_blocked_total", "limit")},
                ),
                time_series(
                    "Declined cards",
                    "ops",
                    {
                        "before the authorization": rate("wallet_card_tokens_refused_total"),
                        "by the authorization": rate('wallet_card_top_ups_total{status="DECLINED"}'),
                    },
                ),
            ],
            "Processing": [
                time_series("Top-ups in processing", "short", {"{{instance}}": "wallet_card_top_ups_in_progress"}),
                time_series(
                    "Top-ups continued by another task",
                    "ops",
                    {
                        "by the completer": rate("wallet_card_top_ups_resumed_total"),
                        "leases lost": rate("wallet_card_leases_lost_total"),
                    },
                ),
                time_series("Webhooks", "ops", {"{{outcome}}": rate("wallet_card_webhooks_total", "outcome")}),
                time_series("Open top-up streams", "short", {"{{instance}}": "wallet_card_top_up_streams"}),
                connections("card"),
            ],
        },
    ),
    Dashboard(
        "gateway",
        "Wallet · Gateway",
        ("RequestsFail", "ServiceDown", "RefreshTokenReused"),
        {
            "Now": [
                stat("Requests", "reqps", rate(f"{_HTTP}_count")),
                stat(
                    "Failed requests",
                    "percentunit",
                    share(f'{_HTTP}_count{{status="5xx"}}', f"{_HTTP}_count"),
                    bad=0.05,
                ),
                stat("Duration of a request, 99 %", "s", quantile(0.99, _HTTP), bad=1),
                stat("WebSockets", "short", "sum(wallet_gateway_websockets)"),
                stat("Event streams", "short", "sum(wallet_gateway_event_streams)"),
            ],
            "Requests": [
                time_series(
                    "Requests by route", "reqps", {"{{method}} {{route}}": rate(f"{_HTTP}_count", "method, route")}
                ),
                time_series("Requests by status class", "reqps", {"{{status}}": rate(f"{_HTTP}_count", "status")}),
                time_series(
                    "Duration of a request, 99 %",
                    "s",
                    {"{{method}} {{route}}": quantile(0.99, _HTTP, by="method, route")},
                    bad=1,
                ),
            ],
            "GraphQL operations": [
                time_series("Operations by name", "ops", {"{{type}} {{name}}": rate(f"{_GRAPH}_count", "type, name")}),
                time_series(
                    "Errors by code", "ops", {"{{code}}": rate("wallet_gateway_operation_errors_total", "code")}
                ),
                time_series(
                    "Duration of an operation, 99 %",
                    "s",
                    {"{{type}} {{name}}": quantile(0.99, _GRAPH, '{type!="subscription"}', by="type, name")},
                    bad=1,
                ),
            ],
            "Login": [
                time_series("Login attempts", "ops", {"{{outcome}}": rate("wallet_identity_logins_total", "outcome")}),
                time_series(
                    "Uses of refresh tokens", "ops", {"{{outcome}}": rate("wallet_identity_refreshes_total", "outcome")}
                ),
                time_series(
                    "Password changes",
                    "ops",
                    {"{{outcome}}": rate("wallet_identity_password_changes_total", "outcome")},
                ),
                time_series("Duration of a password hash", "s", quantiles("wallet_identity_hash_seconds")),
                time_series("Passwords being hashed or waiting", "short", {"{{instance}}": "wallet_identity_hashing"}),
            ],
        },
    ),
)
