-- Gatepost's store: the whole schema, as of PRAGMA user_version = 12.
--
-- Times are integer Unix milliseconds, UTC. Ids are UUIDv7 in text. The file stays readable and writable for SQLite 3.40
-- (Debian 12), so that an administrator's sqlite3 shell can change it while the daemon runs; the daemon notices.
-- That library's json_valid(NULL) is 0, so each CHECK of a JSON column allows NULL by name.
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
    created_at INTEGER NOT NULL,
    limits     TEXT CHECK (limits IS NULL OR json_valid(limits)),    -- JSON by name; NULL: the instance's
    credentials INTEGER NOT NULL DEFAULT 0                           -- how many; kept by the triggers below
) STRICT;

-- `key` is never reused (AUTOINCREMENT): uses noted in memory are written by key, and must not land on a successor.
CREATE TABLE credentials (
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
    rules          TEXT CHECK (rules IS NULL OR json_valid(rules)),      -- JSON: what it may do; NULL: anything
    name_key       TEXT,                                             -- sorts a name with letters beyond ASCII
    is_used        INTEGER NOT NULL DEFAULT 0 CHECK (is_used IN (0, 1))  -- has a row in last_used; kept by triggers
) STRICT;

CREATE INDEX credentials_by_organization ON credentials (organization);

-- So that a page of a long table is found in any order without sorting all of it.
CREATE INDEX credentials_by_name ON credentials (organization, coalesce(name_key, lower(name)));
CREATE INDEX credentials_by_status ON credentials (organization, status);
CREATE INDEX credentials_by_username ON credentials (organization, username COLLATE NOCASE);
CREATE INDEX credentials_never_used ON credentials (organization, created_at) WHERE is_used = 0;

CREATE INDEX credentials_by_expiry ON credentials (expires_at, organization, status)
WHERE expires_at IS NOT NULL;

-- SQLite folds the case of ASCII letters only. Gatepost writes `name_key` for every other name, in the
-- transaction that sets the name; after another program has written one, with its own next change.
-- Until then such a name sorts by its octets.
CREATE INDEX credentials_without_name_key ON credentials (key)
WHERE name_key IS NULL AND name GLOB '*[^ -~]*';

CREATE TRIGGER credentials_name_key
AFTER UPDATE OF name ON credentials
WHEN NEW.name IS NOT OLD.name
BEGIN
    UPDATE credentials SET name_key = NULL WHERE key = NEW.key;
END;

-- A verified password is remembered for one (key, version). The trigger moves the version whoever makes the change. Its own
-- update names only `version`, which is not in the list, so it cannot set itself off.
CREATE TRIGGER credentials_version
AFTER UPDATE OF username, password_hash, tag, status, expires_at, organization, previous_hash, previous_tag, previous_until,
    limits, rules
ON credentials
BEGIN
    UPDATE credentials SET version = OLD.version + 1 WHERE key = NEW.key;
END;

-- What a search reads: per organization and 256 keys of credentials a block with their usernames and names,
-- without case and accents. Gatepost writes a block in the transaction that changes a credential of it, or, if
-- another program made the change, with its own next change. A search reads the credentials themselves until then.
CREATE TABLE search_blocks (
    organization INTEGER NOT NULL,
    block        INTEGER NOT NULL,  -- credentials.key >> 8
    places       BLOB,              -- the lowest octet of each key
    text         TEXT,              -- per credential a line with its username and a line with its name; NULL: to write
    PRIMARY KEY (organization, block)
) STRICT;

CREATE INDEX search_blocks_to_write ON search_blocks (organization) WHERE text IS NULL;

CREATE TRIGGER credentials_added AFTER INSERT ON credentials
BEGIN
    UPDATE organizations SET credentials = credentials + 1 WHERE key = NEW.organization;
    INSERT INTO search_blocks (organization, block) VALUES (NEW.organization, NEW.key >> 8)
    ON CONFLICT DO UPDATE SET places = NULL, text = NULL WHERE text IS NOT NULL;
END;

CREATE TRIGGER credentials_removed AFTER DELETE ON credentials
BEGIN
    UPDATE organizations SET credentials = credentials - 1 WHERE key = OLD.organization;
    UPDATE search_blocks SET places = NULL, text = NULL
    WHERE organization = OLD.organization AND block = OLD.key >> 8 AND text IS NOT NULL;
END;

CREATE TRIGGER credentials_renamed AFTER UPDATE OF username, name ON credentials
BEGIN
    UPDATE search_blocks SET places = NULL, text = NULL
    WHERE organization = NEW.organization AND block = NEW.key >> 8 AND text IS NOT NULL;
END;

CREATE TRIGGER credentials_moved AFTER UPDATE OF organization ON credentials
WHEN NEW.organization <> OLD.organization
BEGIN
    UPDATE organizations SET credentials = credentials - 1 WHERE key = OLD.organization;
    UPDATE organizations SET credentials = credentials + 1 WHERE key = NEW.organization;
    UPDATE last_used SET organization = NEW.organization WHERE credential = NEW.key;
    UPDATE search_blocks SET places = NULL, text = NULL
    WHERE organization = OLD.organization AND block = OLD.key >> 8;
    INSERT INTO search_blocks (organization, block) VALUES (NEW.organization, NEW.key >> 8)
    ON CONFLICT DO UPDATE SET places = NULL, text = NULL;
END;

-- Apart from credentials, so that a flush of thousands of rows touches few pages and moves no version.
CREATE TABLE last_used (
    credential INTEGER PRIMARY KEY REFERENCES credentials (key) ON DELETE CASCADE,
    at         INTEGER NOT NULL,    -- of the latest login
    address    TEXT    NOT NULL,
    tls        TEXT,                -- protocol version; NULL: no TLS
    mechanism  TEXT    NOT NULL,
    helo       TEXT    NOT NULL,
    count      INTEGER NOT NULL,    -- of all logins so far
    message_at INTEGER,             -- of the latest message that the upstream took
    messages   INTEGER NOT NULL DEFAULT 0,
    latest     INTEGER GENERATED ALWAYS AS (max(at, coalesce(message_at, at))) VIRTUAL,
    organization INTEGER            -- the credential's; kept by triggers
) STRICT;

CREATE INDEX last_used_by_time ON last_used (organization, latest);

CREATE TRIGGER last_used_added AFTER INSERT ON last_used
BEGIN
    UPDATE last_used SET organization = (SELECT organization FROM credentials WHERE key = NEW.credential)
    WHERE credential = NEW.credential;
    UPDATE credentials SET is_used = 1 WHERE key = NEW.credential;
END;

CREATE TRIGGER last_used_removed AFTER DELETE ON last_used
BEGIN
    UPDATE credentials SET is_used = 0 WHERE key = OLD.credential;
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

-- Passwords that were replaced, by what lets one that is still offered be told: without it nobody knows which device to look
-- for. Only of generated passwords, and the newest few of each credential.
CREATE TABLE retired_passwords (
    credential INTEGER NOT NULL REFERENCES credentials (key) ON DELETE CASCADE,
    retired_at INTEGER NOT NULL,
    tag        INTEGER NOT NULL CHECK (tag BETWEEN 0 AND 4294967295),
    PRIMARY KEY (credential, retired_at)
) STRICT, WITHOUT ROWID;

-- The latest use of the previous password in an overlap, and how many there were.
CREATE TABLE previous_used (
    credential INTEGER PRIMARY KEY REFERENCES credentials (key) ON DELETE CASCADE,
    at         INTEGER NOT NULL,
    address    TEXT    NOT NULL,
    count      INTEGER NOT NULL
) STRICT;

-- The latest use of the present password in an overlap, and how many there were.
CREATE TABLE current_used (
    credential INTEGER PRIMARY KEY REFERENCES credentials (key) ON DELETE CASCADE,
    at         INTEGER NOT NULL,
    address    TEXT    NOT NULL,
    count      INTEGER NOT NULL
) STRICT;

-- Overlaps that a later rotation kept, each with the time when its previous password was replaced. Of all other overlaps
-- that is credentials.rotated_at.
CREATE TABLE kept_overlaps (
    credential INTEGER PRIMARY KEY REFERENCES credentials (key) ON DELETE CASCADE,
    since      INTEGER NOT NULL
) STRICT;

-- The last refused logins. The credential is NULL where there is none of that name; both kinds are bounded.
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

-- How often limits and rules refused each credential's mail, or would have, were that not only reported.
CREATE TABLE breaches (
    credential INTEGER NOT NULL REFERENCES credentials (key) ON DELETE CASCADE,
    reason     TEXT    NOT NULL,        -- the limit or the rule
    party      TEXT    NOT NULL,        -- whose it is: credential, organization
    action     TEXT    NOT NULL,        -- refused, reported
    first_at   INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    PRIMARY KEY (credential, reason, party, action)
) STRICT, WITHOUT ROWID;

CREATE INDEX breaches_by_time ON breaches (at);

-- What networks owe for failed logins, so that a restart forgives nobody.
CREATE TABLE penalties (
    network      TEXT    PRIMARY KEY,   -- CIDR
    score        REAL    NOT NULL,      -- as of `at`
    at           INTEGER NOT NULL,
    bans         INTEGER NOT NULL,      -- in a row: each is longer than the one before
    banned_until INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX penalties_by_time ON penalties (at);

-- Where credentials were used from: their owners are not locked out there. The newest few of each credential.
CREATE TABLE trusted_networks (
    credential INTEGER NOT NULL REFERENCES credentials (key) ON DELETE CASCADE,
    network    TEXT    NOT NULL,        -- CIDR
    at         INTEGER NOT NULL,
    PRIMARY KEY (credential, network)
) STRICT, WITHOUT ROWID;

CREATE INDEX trusted_networks_by_time ON trusted_networks (at);

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
    actor   TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    made    TEXT    NOT NULL,           -- the id
    at      INTEGER NOT NULL,
    request BLOB,                       -- a hash of method, path and body; NULL: noted before version 7
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;

-- Who changed what. Rows are only ever added, each with a hash over itself and the row before, so that a row that was
-- altered, removed or slipped in shows. Names are text: the log outlives what it speaks of.
CREATE TABLE audit_log (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,      -- without gaps
    at           INTEGER NOT NULL,
    actor_kind   TEXT    NOT NULL CHECK (actor_kind IN ('cli', 'person', 'socket', 'system', 'token')),
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
