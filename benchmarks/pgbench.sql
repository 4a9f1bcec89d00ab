-- Reference of the bank's figures: all rows of one transfer in one transaction, statement by statement, as a service
-- without batches would write them. Ids and keys need no extra round trip: the first UPDATE returns the transfer's id.
-- The idempotency key is random, like a client's key, and has 32 hexadecimal digits, like a UUID.
\set sender random(0, :accounts - 1)
\set recipient (:sender + random(1, :accounts - 1)) % :accounts
\set key random(1, 9223372036854775807)
BEGIN;
SELECT id, owner_id, currency, status, balance, min_balance, version, updated_at FROM accounts
WHERE id IN (('a1b2c3d4-e5f6-4a7b-8c9d-' || lpad(to_hex(:sender::int), 12, '0'))::uuid,
             ('a1b2c3d4-e5f6-4a7b-8c9d-' || lpad(to_hex(:recipient::int), 12, '0'))::uuid)
ORDER BY id FOR NO KEY UPDATE;
SELECT fingerprint, transfer_id, refusal FROM idempotency_keys
WHERE principal = 'bench|owner-' || :sender::int % :owners::int AND operation = 'transfer' AND key = md5(:key::text);
UPDATE accounts SET balance = balance - 1, version = version + 1, updated_at = now()
WHERE id = ('a1b2c3d4-e5f6-4a7b-8c9d-' || lpad(to_hex(:sender::int), 12, '0'))::uuid
RETURNING id AS sender_id, version AS sender_version, balance AS sender_balance, uuidv7() AS transfer_id \gset
UPDATE accounts SET balance = balance + 1, version = version + 1, updated_at = now()
WHERE id = ('a1b2c3d4-e5f6-4a7b-8c9d-' || lpad(to_hex(:recipient::int), 12, '0'))::uuid
RETURNING id AS recipient_id, version AS recipient_version, balance AS recipient_balance \gset
INSERT INTO transfers (id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
                       sender_version, recipient_version)
VALUES (:transfer_id::uuid, 'TRANSFER', :sender_id::uuid, :recipient_id::uuid, 1, 'RUB', now(), md5(:key::text),
        :sender_version::bigint, :recipient_version::bigint);
INSERT INTO entries (account_id, version, transfer_id, amount, balance_after)
VALUES (:sender_id::uuid, :sender_version::bigint, :transfer_id::uuid, -1, :sender_balance::numeric),
       (:recipient_id::uuid, :recipient_version::bigint, :transfer_id::uuid, 1, :recipient_balance::numeric);
INSERT INTO idempotency_keys (principal, operation, key, fingerprint, transfer_id)
VALUES ('bench|owner-' || :sender::int % :owners::int, 'transfer', md5(:key::text), sha256(:transfer_id::text::bytea),
        :transfer_id::uuid);
INSERT INTO outbox (transfer_id) VALUES (:transfer_id::uuid);
COMMIT;
