-- The sort key stores an account's rows together, in the order in which pages read them.
-- ReplacingMergeTree merges repeated rows in the background, and FINAL merges them at read time. If two copies of an
-- operation differ, the copy that was inserted last counts: `wallet replay` depends on that.
CREATE TABLE IF NOT EXISTS operations
(
    account_id UUID,
    account_version Int64,
    operation_id UUID,
    type Enum8('TRANSFER' = 1, 'TOP_UP' = 2),
    direction Enum8('IN' = 1, 'OUT' = 2),
    amount Decimal(22, 4),
    currency LowCardinality(String),
    balance_after Decimal(22, 4),
    counterparty_id UUID,
    occurred_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (account_id, account_version)
SETTINGS index_granularity = 1024;
