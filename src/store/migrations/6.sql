-- From version 5 to 6: JSON columns that SQLite 3.40 (Debian 12) can leave NULL. Its json_valid(NULL) is 0, where newer
-- libraries have NULL, so it refused each row that has no limits or no rules.
--
-- A CHECK is changed by making the table anew. Foreign keys are off meanwhile, or DROP TABLE would delete what refers to it.
-- The counter of AUTOINCREMENT moves along: a key is never given twice.

CREATE TABLE organizations_new (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    slug       TEXT    NOT NULL UNIQUE CHECK (length(slug) BETWEEN 1 AND 63 AND slug NOT GLOB '*[^a-z0-9-]*'),
    name       TEXT,
    status     TEXT    NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    created_at INTEGER NOT NULL,
    limits     TEXT CHECK (limits IS NULL OR json_valid(limits))     -- JSON by name; NULL: the instance's
) STRICT;

INSERT INTO organizations_new (
    key, id, slug, name, status, created_at, limits
) SELECT
    key, id, slug, name, status, created_at, limits
FROM organizations;

DELETE FROM sqlite_sequence WHERE name = 'organizations_new';
INSERT INTO sqlite_sequence (name, seq) SELECT 'organizations_new', seq FROM sqlite_sequence WHERE name = 'organizations';

DROP TABLE organizations;
ALTER TABLE organizations_new RENAME TO organizations;

CREATE TABLE credentials_new (
    key           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    username      TEXT    NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 255),
    organization  INTEGER NOT NULL REFERENCES organizations (key),
    name          TEXT,
    password_hash TEXT    NOT NULL,                                  -- argon2id, PHC string; imported: as it came, until a login
    tag           INTEGER CHECK (tag BETWEEN 0 AND 4294967295),      -- of a generated password; NULL: compare the hash only
    status        TEXT    NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked')),
    version       INTEGER NOT NULL DEFAULT 1,                        -- kept by the trigger below
    created_at    INTEGER NOT NULL,
    rotated_at    INTEGER,
    revoked_at    INTEGER,
    expires_at    INTEGER,
    previous_hash  TEXT,                                             -- of the password before the last rotation ...
    previous_tag   INTEGER CHECK (previous_tag BETWEEN 0 AND 4294967295),
    previous_until INTEGER,                                          -- ... which is right before this time, too
    limits         TEXT CHECK (limits IS NULL OR json_valid(limits)),    -- JSON by name; NULL: the instance's
    rules          TEXT CHECK (rules IS NULL OR json_valid(rules))       -- JSON: what it may do; NULL: anything
) STRICT;

INSERT INTO credentials_new (
    key, id, username, organization, name, password_hash, tag, status, version,
    created_at, rotated_at, revoked_at, expires_at, previous_hash, previous_tag,
    previous_until, limits, rules
) SELECT
    key, id, username, organization, name, password_hash, tag, status, version,
    created_at, rotated_at, revoked_at, expires_at, previous_hash, previous_tag,
    previous_until, limits, rules
FROM credentials;

DELETE FROM sqlite_sequence WHERE name = 'credentials_new';
INSERT INTO sqlite_sequence (name, seq) SELECT 'credentials_new', seq FROM sqlite_sequence WHERE name = 'credentials';

DROP TABLE credentials;
ALTER TABLE credentials_new RENAME TO credentials;

CREATE INDEX credentials_by_organization ON credentials (organization);
CREATE INDEX credentials_by_name ON credentials (organization, name COLLATE NOCASE);
CREATE INDEX credentials_by_status ON credentials (organization, status);
CREATE INDEX credentials_by_username ON credentials (organization, username);

CREATE TRIGGER credentials_version
AFTER UPDATE OF username, password_hash, tag, status, expires_at, organization, previous_hash, previous_tag, previous_until,
    limits, rules
ON credentials
BEGIN
    UPDATE credentials SET version = OLD.version + 1 WHERE key = NEW.key;
END;
