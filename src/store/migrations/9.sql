-- From version 8 to 9: finds the credentials that expire soon without a look at every credential.

CREATE INDEX credentials_by_expiry ON credentials (expires_at, organization, status)
WHERE expires_at IS NOT NULL;
