-- From version 4 to 5: what limits and rules refused.

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
