"""Metrics of the identity service."""

from prometheus_client import Counter, Gauge, Histogram

from kit.telemetry.metrics import with_old_name

REGISTERED = Counter("wallet_identity_registered", "Registered users.")
LOGINS = with_old_name(
    Counter("wallet_identity_logins", "Login attempts by outcome: right, wrong or locked.", ["outcome"]),
    "wallet_identity_sign_ins",
)
PASSWORD_CHANGES = Counter(
    "wallet_identity_password_changes",
    "Password changes by outcome: changed, repeated (a retry after a lost response), wrong (current password) or "
    "locked.",
    ["outcome"],
)
REFRESHES = Counter(
    "wallet_identity_refreshes",
    "Uses of refresh tokens by outcome: replaced, repeated (a retry within seconds), reused (later; the session was "
    "ended), over (the session had ended before) or unknown.",
    ["outcome"],
)
HASH_SECONDS = Histogram(
    "wallet_identity_hash_seconds",
    "Duration of a password hash, without the time that it waited for a thread.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
HASHING = Gauge("wallet_identity_hashing", "Passwords that are being hashed or wait for a thread.")
HASHES_REJECTED = with_old_name(
    Counter(
        "wallet_identity_hashes_rejected", "Passwords that were refused because too many others waited to be hashed."
    ),
    "wallet_identity_hashes_shed",
)
KEYS = Gauge("wallet_identity_keys", "Signing keys whose public keys the service publishes.")
