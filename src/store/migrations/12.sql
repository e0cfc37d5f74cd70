-- From version 11 to 12: the forms that search and order compare spell letters with a stroke, such as ł and ø, and
-- two letters in one, such as æ, plainly. Gatepost writes these forms anew behind this migration.

UPDATE credentials SET name_key = NULL WHERE name_key IS NOT NULL;
UPDATE search_blocks SET places = NULL, text = NULL;
