-- From version 2 to 3: indexes for tables of credentials.

CREATE INDEX credentials_by_name ON credentials (organization, name COLLATE NOCASE);
CREATE INDEX credentials_by_status ON credentials (organization, status);
CREATE INDEX credentials_by_username ON credentials (organization, username);
