-- Gatepost's store: the whole schema, as of PRAGMA user_version = 1.
--
-- Times are integer Unix milliseconds, UTC. Ids are UUIDv7 in text. The file stays readable and writable for SQLite 3.40
-- (Debian 12), so that an administrator's sqlite3 shell can change it while the daemon runs; the daemon notices.
-- Kept out of here because they are made of random bytes: the row of `instance` and the organization `default`.

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
