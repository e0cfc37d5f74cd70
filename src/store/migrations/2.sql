-- From version 1 to 2: overlapping passwords, usage, tokens, the audit log. What the tables mean is written in schema.sql.

ALTER TABLE credentials ADD COLUMN previous_hash TEXT;
ALTER TABLE credentials ADD COLUMN previous_tag INTEGER CHECK (previous_tag BETWEEN 0 AND 4294967295);
ALTER TABLE credentials ADD COLUMN previous_until INTEGER;

DROP TRIGGER credentials_version;

CREATE TRIGGER credentials_version
AFTER UPDATE OF username, password_hash, tag, status, expires_at, organization, previous_hash, previous_tag, previous_until
ON credentials
BEGIN
    UPDATE credentials SET version = OLD.version + 1 WHERE key = NEW.key;
END;

-- What each credential did in each hour. Without a reference to credentials: the organization's sums outlive them.
CREATE TABLE usage (
    organization INTEGER NOT NULL REFERENCES organizations (key) ON DELETE CASCADE,
    credential   INTEGER NOT NULL,      -- credentials.key, which is never reused
    hour         INTEGER NOT NULL,      -- since 1970
    messages     INTEGER NOT NULL,      -- the upstream took
    recipients   INTEGER NOT NULL,      -- the upstream took
    bytes        INTEGER NOT NULL,      -- of message bodies sent upstream
    accepted     INTEGER NOT NULL,      -- logins
    refused      INTEGER NOT NULL,      -- logins
    PRIMARY KEY (credential, hour)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_organization ON usage (organization, hour);
CREATE INDEX usage_by_hour ON usage (hour);

-- Bearer tokens of the admin API. Only the hash is kept: the token is random enough that nobody finds it by trying.
CREATE TABLE admin_tokens (
    key               INTEGER PRIMARY KEY AUTOINCREMENT,
    id                TEXT    NOT NULL UNIQUE,
    name              TEXT    NOT NULL,
    hash              BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    organization      INTEGER REFERENCES organizations (key) ON DELETE CASCADE,     -- NULL: all of them, and the instance
    access            TEXT    NOT NULL CHECK (access IN ('admin', 'read')),
    created_at        INTEGER NOT NULL,
    expires_at        INTEGER,
    revoked_at        INTEGER,
    last_used_at      INTEGER,
    last_used_address TEXT              -- NULL: over the unix socket
) STRICT;

CREATE INDEX admin_tokens_by_organization ON admin_tokens (organization);

-- What requests with an Idempotency-Key made, so that a repeated one makes nothing. Kept for a day.
CREATE TABLE idempotency_keys (
    actor TEXT    NOT NULL,
    key   TEXT    NOT NULL,
    made  TEXT    NOT NULL,             -- the id
    at    INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;

-- Who changed what. Rows are only ever added, each with a hash over itself and the row before, so that a row that was
-- altered, removed or slipped in shows. Names are text: the log outlives what it speaks of.
CREATE TABLE audit_log (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,      -- without gaps
    at           INTEGER NOT NULL,
    actor_kind   TEXT    NOT NULL CHECK (actor_kind IN ('cli', 'socket', 'system', 'token')),
    actor        TEXT    NOT NULL,
    address      TEXT,
    action       TEXT    NOT NULL,
    object       TEXT    NOT NULL,
    organization TEXT,
    before       TEXT,                  -- JSON: fields as they were
    after        TEXT,                  -- JSON: fields as they became
    hash         BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE INDEX audit_log_by_organization ON audit_log (organization, seq);
CREATE INDEX audit_log_by_object ON audit_log (object, seq);

-- Where the log begins: the last row that was pruned, and its hash.
CREATE TABLE audit_anchor (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seq  INTEGER NOT NULL,
    hash BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

INSERT INTO audit_anchor (only, seq, hash) VALUES (1, 0, zeroblob(32));

CREATE TRIGGER audit_log_is_not_changed BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- Also keeps INSERT OR REPLACE from changing a row.
CREATE TRIGGER audit_log_is_only_appended BEFORE INSERT ON audit_log
WHEN NEW.seq <= (SELECT max(seq) FROM (SELECT seq FROM audit_anchor UNION ALL SELECT max(seq) FROM audit_log))
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_log_is_not_shortened BEFORE DELETE ON audit_log
WHEN OLD.seq > (SELECT seq FROM audit_anchor)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only: gatepost audit prune');
END;

CREATE TRIGGER audit_anchor_moves_along_the_log BEFORE UPDATE ON audit_anchor
WHEN NEW.seq <= OLD.seq OR NEW.hash IS NOT (SELECT hash FROM audit_log WHERE seq = NEW.seq)
BEGIN
    SELECT RAISE(ABORT, 'the audit anchor only moves to a row of the log');
END;

CREATE TRIGGER audit_anchor_stays BEFORE DELETE ON audit_anchor
BEGIN
    SELECT RAISE(ABORT, 'the audit anchor stays');
END;
