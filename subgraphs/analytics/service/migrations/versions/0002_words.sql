-- Words on transfers. Operations without words have empty values.
ALTER TABLE operations
    ADD COLUMN IF NOT EXISTS description String,
    ADD COLUMN IF NOT EXISTS reference String,
    ADD COLUMN IF NOT EXISTS metadata Map(String, String),
    ADD COLUMN IF NOT EXISTS created_by String;
-- Index of the three-character parts of the descriptions, for a search of a text without regard to case.
ALTER TABLE operations
    ADD INDEX IF NOT EXISTS description_text lowerUTF8(description) TYPE ngrambf_v1(3, 2048, 3, 0) GRANULARITY 1;
ALTER TABLE operations
    ADD INDEX IF NOT EXISTS reference reference TYPE bloom_filter(0.01) GRANULARITY 1;
