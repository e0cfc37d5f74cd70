-- The schema of version 1, for the test that migrates it.

CREATE TABLE instance (
    only    INTEGER PRIMARY KEY CHECK (only = 1),
    tag_key BLOB    NOT NULL CHECK (length(tag_key) = 32)   -- keys credentials.tag; lost with it: every tag
) STRICT;

CREATE TABLE organizations (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    slug       TEXT    NOT NULL UNIQUE CHECK (length(slug) BETWEEN 1 AND 63 AND slug NOT GLOB '*[^a-z0-9-]*'),
    name       TEXT,
    status     TEXT    NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    created_at INTEGER NOT NULL
) STRICT;

-- `key` is never reused (AUTOINCREMENT): uses noted in memory are written by key, and must not land on a successor.
CREATE TABLE credentials (
    key           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    username      TEXT    NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 255),
    organization  INTEGER NOT NULL REFERENCES organizations (key),
    name          TEXT,
    password_hash TEXT    NOT NULL,                                  -- argon2id, PHC string
    tag           INTEGER CHECK (tag BETWEEN 0 AND 4294967295),      -- of a generated password; NULL: compare the hash only
    status        TEXT    NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked')),
    version       INTEGER NOT NULL DEFAULT 1,                        -- kept by the trigger below
    created_at    INTEGER NOT NULL,
    rotated_at    INTEGER,
    revoked_at    INTEGER,
    expires_at    INTEGER
) STRICT;

CREATE INDEX credentials_by_organization ON credentials (organization);

-- A verified password is remembered for one (key, version). The trigger moves the version whoever makes the change. Its own
-- update names only `version`, which is not in the list, so it cannot set itself off.
CREATE TRIGGER credentials_version
AFTER UPDATE OF username, password_hash, tag, status, expires_at, organization ON credentials
BEGIN
    UPDATE credentials SET version = OLD.version + 1 WHERE key = NEW.key;
END;

-- Apart from credentials, so that a flush of thousands of rows touches few pages and moves no version.
CREATE TABLE last_used (
    credential INTEGER PRIMARY KEY REFERENCES credentials (key) ON DELETE CASCADE,
    at         INTEGER NOT NULL,
    address    TEXT    NOT NULL,
    tls        TEXT,                -- protocol version; NULL: no TLS
    mechanism  TEXT    NOT NULL,
    helo       TEXT    NOT NULL,
    count      INTEGER NOT NULL     -- of all uses so far
) STRICT;

PRAGMA application_id = 1197569125;
PRAGMA user_version = 1;
INSERT INTO instance (only, tag_key) VALUES (1, zeroblob(32));
INSERT INTO organizations (id, slug, created_at) VALUES ('019ac000-0000-7000-8000-000000000001', 'default', 1);
INSERT INTO credentials (id, username, organization, password_hash, created_at)
VALUES ('019ac000-0000-7000-8000-000000000002', 'smtp_old', 1, '$hash', 2);
