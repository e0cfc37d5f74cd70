-- From version 9 to 10: search, disuse and numbers of credentials without reading all of them.

ALTER TABLE organizations ADD COLUMN credentials INTEGER NOT NULL DEFAULT 0;
UPDATE organizations SET credentials = (SELECT count(*) FROM credentials c WHERE c.organization = organizations.key);

ALTER TABLE credentials ADD COLUMN is_used INTEGER NOT NULL DEFAULT 0 CHECK (is_used IN (0, 1));
UPDATE credentials SET is_used = 1 WHERE key IN (SELECT credential FROM last_used);
CREATE INDEX credentials_never_used ON credentials (organization, created_at) WHERE is_used = 0;

ALTER TABLE last_used ADD COLUMN organization INTEGER;
UPDATE last_used SET organization = (SELECT c.organization FROM credentials c WHERE c.key = last_used.credential);
CREATE INDEX last_used_by_time ON last_used (organization, latest);

CREATE TABLE search_blocks (
    organization INTEGER NOT NULL,
    block        INTEGER NOT NULL,
    places       BLOB,
    text         TEXT,
    PRIMARY KEY (organization, block)
) STRICT;

CREATE INDEX search_blocks_to_write ON search_blocks (organization) WHERE text IS NULL;
INSERT INTO search_blocks (organization, block) SELECT DISTINCT organization, key >> 8 FROM credentials;

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
