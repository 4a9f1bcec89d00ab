"""The identity service's own metrics."""

from prometheus_client import Counter, Gauge, Histogram

REGISTERED = Counter("wallet_identity_registered", "Users that were made.")
SIGN_INS = Counter("wallet_identity_sign_ins", "Attempts to sign in, by what came of them.", ["outcome"])
REFRESHES = Counter("wallet_identity_refreshes", "Uses of refresh tokens, by what came of them.", ["outcome"])
HASH_SECONDS = Histogram(
    "wallet_identity_hash_seconds",
    "How long a password was hashed, without the wait for its turn.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
HASHING = Gauge("wallet_identity_hashing", "Passwords that are hashed now, or wait for it.")
SHED = Counter("wallet_identity_hashes_shed", "Passwords that were not hashed because too many waited.")
KEYS = Gauge("wallet_identity_keys", "Keys that are published.")
