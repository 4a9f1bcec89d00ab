"""What is on the dashboards. After a change: `make gen`."""

from typing import Final

from deploy.grafana.panels import Dashboard, Panel, course, mean, now, quantile, quantiles, rate, share

_RPC: Final = "wallet_rpc_duration_seconds"
_HTTP: Final = "wallet_gateway_request_duration_seconds"
_GRAPH: Final = "wallet_gateway_operation_duration_seconds"
_TRANSFERS: Final = 'method=~"/wallet.bank.v1.BankService/(Batch)?TransferMoney"'
_TRANSFER: Final = '{method="/wallet.bank.v1.BankService/TransferMoney"}'
_OUR_FAULT: Final = 'code=~"UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|UNKNOWN"'
_BATCH: Final = "wallet_bank_batch_size"
_USED: Final = "wallet_database_connections_in_use"
_LIMIT: Final = "wallet_database_connections_limit"
_PROCESS: Final = "{{job}} {{instance}}"


def connections(job: str) -> Panel:
    """Of a service's pool."""
    of_job = f'{{job="{job}"}}'
    queries = {"{{instance}}": f"{_USED}{of_job}", "{{instance}}, limit": f"{_LIMIT}{of_job}"}
    return course("Connections to the database", "short", queries)


def proof(job: str) -> list[Panel]:
    """The last one of a service's data."""
    return [
        now("Violations, by the last proof", "short", f"max(wallet_{job}_integrity_violations)", bad=1),
        now("Since the last proof", "s", f"time() - (max(wallet_{job}_integrity_finished_timestamp_seconds) > 0)"),
    ]


DASHBOARDS: Final = (
    Dashboard(
        "system",
        "Wallet",
        ("ServiceDown", "RequestsFail", "ConnectionsExhausted", "CertificateExpires"),
        {
            "Now": [
                now("Replicas", "short", "sum by (job) (up)", "{{job}}", bad=1, good_above=True),
                now("Alerts", "short", 'count(ALERTS{alertstate="firing"}) or vector(0)', bad=1),
                now("Transfers", "ops", rate(f"{_RPC}_count{{{_TRANSFERS}}}")),
                now(
                    "Failed requests",
                    "percentunit",
                    share(f'{_HTTP}_count{{status="5xx"}}', f"{_HTTP}_count"),
                    bad=0.05,
                ),
            ],
            "Calls between services": [
                course("Calls", "reqps", {"{{job}}": rate(f"{_RPC}_count", "job")}),
                course(
                    "Failed by our fault",
                    "percentunit",
                    {"{{job}}": share(f"{_RPC}_count{{{_OUR_FAULT}}}", f"{_RPC}_count", "job")},
                    bad=0.05,
                ),
                course("Duration, 99 %", "s", {"{{job}}": quantile(0.99, _RPC, by="job")}),
                course(
                    "Not made",
                    "reqps",
                    {"{{method}}: {{reason}}": rate("wallet_calls_refused_total", "method, reason")},
                ),
                course(
                    "Circuits open",
                    "short",
                    {"{{method}}": 'sum by (method) (wallet_call_circuit{wallet_call_circuit="opened"})'},
                ),
            ],
            "Processes": [
                course(
                    "CPU",
                    "percentunit",
                    {_PROCESS: "rate(process_cpu_seconds_total[$__rate_interval])"},
                    bad=1,
                ),
                course("Memory", "bytes", {_PROCESS: "process_resident_memory_bytes"}),
                course(
                    "Connections to the database",
                    "percentunit",
                    {_PROCESS: f"{_USED} / ({_LIMIT} > 0)"},
                    bad=0.9,
                ),
            ],
            "Lives": [
                course("Since the start", "s", {_PROCESS: "time() - process_start_time_seconds"}),
                course(
                    "Until the certificate's end",
                    "s",
                    {_PROCESS: "(wallet_tls_certificate_expiry_timestamp_seconds > 0) - time()"},
                    bad=14 * 86_400,
                    good_above=True,
                ),
                course("Version", "short", {"{{job}} {{version}}": "sum by (job, version) (wallet_build_info)"}),
            ],
        },
    ),
    Dashboard(
        "ledger",
        "Wallet · Ledger",
        ("IntegrityBroken", "TransfersFail", "TransfersSlow", "ConnectionsExhausted"),
        {
            "Now": [
                now("Transfer calls", "ops", rate(f"{_RPC}_count{{{_TRANSFERS}}}")),
                now(
                    "Failed by our fault, an hour",
                    "percentunit",
                    "wallet:transfer_failures:ratio_rate1h or vector(0)",
                    bad=0.001,
                ),
                now("Duration, 99 %", "s", quantile(0.99, _RPC, _TRANSFER), bad=0.5),
                *proof("bank"),
            ],
            "Transfers": [
                course("By code", "ops", {"{{code}}": rate(f"{_RPC}_count{{{_TRANSFERS}}}", "code")}),
                course("Duration", "s", quantiles(_RPC, _TRANSFER), bad=0.5),
                course("Other calls", "ops", {"{{method}}": rate(f'{_RPC}_count{{job="bank"}}', "method")}),
            ],
            "Batches": [
                course("Size", "short", {"mean": mean(_BATCH), "99 %": quantile(0.99, _BATCH)}),
                course("Wait of the first command", "s", quantiles("wallet_bank_batch_wait_seconds")),
                course(
                    "Refused, and run again",
                    "ops",
                    {
                        "refused: too many wait": rate("wallet_bank_commands_shed_total"),
                        "commit's answer lost": rate("wallet_bank_commits_lost_total"),
                    },
                ),
                connections("bank"),
                course("Read replica", "ops", {"{{how}}": rate("wallet_bank_replica_reads_total", "how")}),
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
            "HistoryIncomplete",
            "EventsUnreadable",
            "IntegrityBroken",
        ),
        {
            "Now": [
                now("Not published", "short", "max(wallet_bank_outbox_backlog)"),
                now("The oldest waits for", "s", "max(wallet_bank_outbox_age_seconds)", bad=60),
                now("Leaders", "short", "sum(wallet_bank_outbox_leads)", bad=1, good_above=True),
                now("Not stored", "short", "sum(wallet_analytics_consumer_lag)", bad=10_000),
                now("Accounts incomplete", "short", "max(wallet_analytics_accounts_incomplete)", bad=1),
                now("Stopped consumers", "short", "sum(wallet_analytics_consumer_stopped)", bad=1),
            ],
            "From the ledger into the history": [
                course(
                    "Events",
                    "ops",
                    {
                        "published": rate("wallet_bank_events_published_total"),
                        "stored": rate("wallet_analytics_events_consumed_total"),
                        "repaired": rate("wallet_analytics_events_repaired_total"),
                        "unreadable": rate("wallet_analytics_dead_letters_total"),
                    },
                ),
                course("Outbox", "short", {"operations": "max(wallet_bank_outbox_backlog)"}),
                course("Lag", "short", {"{{instance}}": "wallet_analytics_consumer_lag"}, bad=10_000),
            ],
            "History": [
                course(
                    "Rows",
                    "ops",
                    {
                        "inserted": rate("wallet_analytics_rows_inserted_total"),
                        "removed by a replay": rate("wallet_analytics_rows_removed_total"),
                        "pulled by a replay": rate("wallet_analytics_operations_replayed_total"),
                    },
                ),
                course(
                    "Since all accounts were compared",
                    "s",
                    {"{{instance}}": "time() - (wallet_analytics_compared_timestamp_seconds > 0)"},
                    bad=600,
                ),
                course("Open streams of operations", "short", {"{{instance}}": "wallet_analytics_subscribers"}),
                course("Calls, 99 %", "s", {"{{method}}": quantile(0.99, _RPC, '{job="analytics"}', by="method")}),
            ],
            "Proof": [
                *proof("analytics"),
                now("On their way, by the last proof", "short", "max(wallet_analytics_integrity_behind)"),
            ],
        },
    ),
    Dashboard(
        "top-ups",
        "Wallet · Top-ups",
        ("TopUpsNeedReview", "TopUpsStuck", "AcquirerCircuitOpen", "IntegrityBroken", "ConnectionsExhausted"),
        {
            "Now": [
                now("For a person", "short", "max(wallet_card_top_ups_to_review)", bad=1),
                now("Under way", "short", "max by (status) (wallet_card_top_ups_open)", "{{status}}"),
                now("The oldest", "s", "max(wallet_card_top_ups_oldest_seconds)", bad=900),
                now(
                    "Circuit closed",
                    "short",
                    'min(wallet_card_acquirer_circuit{wallet_card_acquirer_circuit="closed"})',
                    bad=1,
                    good_above=True,
                ),
                *proof("card"),
            ],
            "What comes of them": [
                course("By status", "ops", {"{{status}}": rate("wallet_card_top_ups_total", "status")}),
                course("Steps", "ops", {"{{step}} {{result}}": rate("wallet_card_steps_total", "step, result")}),
                course("Calls of card", "s", {"{{method}}, 99 %": quantile(0.99, _RPC, '{job="card"}', by="method")}),
            ],
            "How they are driven": [
                course("Driven now", "short", {"{{instance}}": "wallet_card_driven"}),
                course(
                    "Taken over",
                    "ops",
                    {
                        "by the completer": rate("wallet_card_taken_over_total"),
                        "leases lost": rate("wallet_card_leases_lost_total"),
                    },
                ),
                course("Webhooks", "ops", {"{{outcome}}": rate("wallet_card_webhooks_total", "outcome")}),
                course("Open streams of top-ups", "short", {"{{instance}}": "wallet_card_watchers"}),
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
                now("Requests", "reqps", rate(f"{_HTTP}_count")),
                now("Failed", "percentunit", share(f'{_HTTP}_count{{status="5xx"}}', f"{_HTTP}_count"), bad=0.05),
                now("Duration, 99 %", "s", quantile(0.99, _HTTP), bad=1),
                now("WebSockets", "short", "sum(wallet_gateway_websockets)"),
                now("Event streams", "short", "sum(wallet_gateway_event_streams)"),
            ],
            "Requests": [
                course("By route", "reqps", {"{{method}} {{route}}": rate(f"{_HTTP}_count", "method, route")}),
                course("By status", "reqps", {"{{status}}": rate(f"{_HTTP}_count", "status")}),
                course(
                    "Duration, 99 %", "s", {"{{method}} {{route}}": quantile(0.99, _HTTP, by="method, route")}, bad=1
                ),
            ],
            "Operations of the graph": [
                course("By name", "ops", {"{{type}} {{name}}": rate(f"{_GRAPH}_count", "type, name")}),
                course("Errors", "ops", {"{{code}}": rate("wallet_gateway_operation_errors_total", "code")}),
                course(
                    "Duration, 99 %",
                    "s",
                    {"{{type}} {{name}}": quantile(0.99, _GRAPH, '{type!="subscription"}', by="type, name")},
                    bad=1,
                ),
            ],
            "Signing in": [
                course("Attempts", "ops", {"{{outcome}}": rate("wallet_identity_sign_ins_total", "outcome")}),
                course("Refresh tokens", "ops", {"{{outcome}}": rate("wallet_identity_refreshes_total", "outcome")}),
                course("Hashing a password", "s", quantiles("wallet_identity_hash_seconds")),
                course("Passwords that wait", "short", {"{{instance}}": "wallet_identity_hashing"}),
            ],
        },
    ),
)
