-- Two development accounts and their owners. Safe to repeat.
INSERT INTO accounts (id, owner_id, balance, created_at, updated_at) VALUES
    ('123e4567-e89b-12d3-a456-426614174000', 'a11ce000-0000-4000-8000-000000000001', 1000.00, NOW(), NOW()),
    ('987e6543-e21b-34d3-c456-426614174999', 'b0b00000-0000-4000-8000-000000000002', 500.00, NOW(), NOW())
ON CONFLICT DO NOTHING;

-- Accounts that a release without owners has created.
UPDATE accounts SET owner_id = 'a11ce000-0000-4000-8000-000000000001'
WHERE id = '123e4567-e89b-12d3-a456-426614174000' AND owner_id IS NULL;

UPDATE accounts SET owner_id = 'b0b00000-0000-4000-8000-000000000002'
WHERE id = '987e6543-e21b-34d3-c456-426614174999' AND owner_id IS NULL;
