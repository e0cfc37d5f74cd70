-- From version 3 to 4: limits, rules, refusals, and what the guard keeps.

ALTER TABLE organizations ADD COLUMN limits TEXT CHECK (json_valid(limits));
ALTER TABLE credentials ADD COLUMN limits TEXT CHECK (json_valid(limits));
ALTER TABLE credentials ADD COLUMN rules TEXT CHECK (json_valid(rules));

DROP TRIGGER credentials_version;
CREATE TRIGGER credentials_version
AFTER UPDATE OF username, password_hash, tag, status, expires_at, organization, previous_hash, previous_tag, previous_until,
    limits, rules
ON credentials
BEGIN
    UPDATE credentials SET version = OLD.version + 1 WHERE key = NEW.key;
END;

CREATE TABLE retired_passwords (
    credential INTEGER NOT NULL REFERENCES credentials (key) ON DELETE CASCADE,
    retired_at INTEGER NOT NULL,
    tag        INTEGER NOT NULL CHECK (tag BETWEEN 0 AND 4294967295),
    PRIMARY KEY (credential, retired_at)
) STRICT, WITHOUT ROWID;

CREATE TABLE previous_used (
    credential INTEGER PRIMARY KEY REFERENCES credentials (key) ON DELETE CASCADE,
    at         INTEGER NOT NULL,
    address    TEXT    NOT NULL,
    count      INTEGER NOT NULL
) STRICT;

CREATE TABLE refusals (
    username   TEXT    NOT NULL,        -- as the client sent it: its own words
    reason     TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    credential INTEGER REFERENCES credentials (key) ON DELETE CASCADE,
    first_at   INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    retired_at INTEGER,                 -- of the previous password, where that was the reason
    PRIMARY KEY (username, reason, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX refusals_by_credential ON refusals (credential);
CREATE INDEX refusals_by_time ON refusals (at);

CREATE TABLE penalties (
    network      TEXT    PRIMARY KEY,   -- CIDR
    score        REAL    NOT NULL,      -- as of `at`
    at           INTEGER NOT NULL,
    bans         INTEGER NOT NULL,      -- in a row: each is longer than the one before
    banned_until INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX penalties_by_time ON penalties (at);

CREATE TABLE trusted_networks (
    credential INTEGER NOT NULL REFERENCES credentials (key) ON DELETE CASCADE,
    network    TEXT    NOT NULL,        -- CIDR
    at         INTEGER NOT NULL,
    PRIMARY KEY (credential, network)
) STRICT, WITHOUT ROWID;

CREATE INDEX trusted_networks_by_time ON trusted_networks (at);
