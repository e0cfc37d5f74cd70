-- From version 10 to 11: persons that a reverse proxy has signed in, in the audit log.
--
-- A CHECK is changed by making the table anew. The counter of AUTOINCREMENT moves along, and the
-- triggers go with the table; that of audit_anchor names the table, and goes before.

CREATE TABLE audit_log_new (
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

INSERT INTO audit_log_new (seq, at, actor_kind, actor, address, action, object, organization, before, after, hash)
SELECT seq, at, actor_kind, actor, address, action, object, organization, before, after, hash FROM audit_log;

DELETE FROM sqlite_sequence WHERE name = 'audit_log_new';
INSERT INTO sqlite_sequence (name, seq) SELECT 'audit_log_new', seq FROM sqlite_sequence WHERE name = 'audit_log';

DROP TRIGGER audit_anchor_moves_along_the_log;
DROP TABLE audit_log;
ALTER TABLE audit_log_new RENAME TO audit_log;

CREATE INDEX audit_log_by_organization ON audit_log (organization, seq);
CREATE INDEX audit_log_by_object ON audit_log (object, seq);

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
