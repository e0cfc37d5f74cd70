-- From version 7 to 8: order without regard to case and accents in any script.

ALTER TABLE credentials ADD COLUMN name_key TEXT;

DROP INDEX credentials_by_name;
CREATE INDEX credentials_by_name ON credentials (organization, coalesce(name_key, lower(name)));

DROP INDEX credentials_by_username;
CREATE INDEX credentials_by_username ON credentials (organization, username COLLATE NOCASE);

CREATE INDEX credentials_without_name_key ON credentials (key)
WHERE name_key IS NULL AND name GLOB '*[^ -~]*';

CREATE TRIGGER credentials_name_key
AFTER UPDATE OF name ON credentials
WHEN NEW.name IS NOT OLD.name
BEGIN
    UPDATE credentials SET name_key = NULL WHERE key = NEW.key;
END;
