-- From version 6 to 7: messages in last_used, overlaps that a second rotation keeps, requests by what they asked for.

CREATE TABLE last_used_new (
    credential INTEGER PRIMARY KEY REFERENCES credentials (key) ON DELETE CASCADE,
    at         INTEGER NOT NULL,    -- of the latest login
    address    TEXT    NOT NULL,
    tls        TEXT,                -- protocol version; NULL: no TLS
    mechanism  TEXT    NOT NULL,
    helo       TEXT    NOT NULL,
    count      INTEGER NOT NULL,    -- of all logins so far
    message_at INTEGER,             -- of the latest message that the upstream took
    messages   INTEGER NOT NULL DEFAULT 0,
    latest     INTEGER GENERATED ALWAYS AS (max(at, coalesce(message_at, at))) VIRTUAL
) STRICT;

INSERT INTO last_used_new (credential, at, address, tls, mechanism, helo, count)
SELECT credential, at, address, tls, mechanism, helo, count FROM last_used;

DROP TABLE last_used;
ALTER TABLE last_used_new RENAME TO last_used;

CREATE TABLE current_used (
    credential INTEGER PRIMARY KEY REFERENCES credentials (key) ON DELETE CASCADE,
    at         INTEGER NOT NULL,
    address    TEXT    NOT NULL,
    count      INTEGER NOT NULL
) STRICT;

CREATE TABLE kept_overlaps (
    credential INTEGER PRIMARY KEY REFERENCES credentials (key) ON DELETE CASCADE,
    since      INTEGER NOT NULL
) STRICT;

CREATE TABLE idempotency_keys_new (
    actor   TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    made    TEXT    NOT NULL,           -- the id
    at      INTEGER NOT NULL,
    request BLOB,                       -- a hash of method, path and body; NULL: noted before version 7
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;

INSERT INTO idempotency_keys_new (actor, key, made, at) SELECT actor, key, made, at FROM idempotency_keys;

DROP TABLE idempotency_keys;
ALTER TABLE idempotency_keys_new RENAME TO idempotency_keys;
