#!/bin/sh
# Hands a renewed certificate to Gatepost: copies the pair to where the service may read it, and has
# it loaded. No connection is dropped. Works as a deploy hook of certbot (RENEWED_LINEAGE) and as a
# renew hook of lego (LEGO_CERT_…). Certificates with another name are left alone.
set -eu

# The certificate's name: certbot's --cert-name, lego's first --domains.
name=${CERTIFICATE_NAME:-mail.example.org}
# tls.certificate and tls.key are fullchain.pem and privkey.pem in here.
directory=${CERTIFICATE_DIRECTORY:-/etc/gatepost}
# Who may read the key besides its owner, which is whoever runs this.
group=${CERTIFICATE_GROUP:-gatepost}

if [ -n "${RENEWED_LINEAGE:-}" ]; then
    renewed=$(basename "$RENEWED_LINEAGE")
    certificate=$RENEWED_LINEAGE/fullchain.pem
    key=$RENEWED_LINEAGE/privkey.pem
elif [ -n "${LEGO_CERT_PATH:-}" ]; then
    renewed=$LEGO_CERT_DOMAIN
    certificate=$LEGO_CERT_PATH
    key=$LEGO_CERT_KEY_PATH
else
    echo "$0: neither RENEWED_LINEAGE nor LEGO_CERT_PATH is set; this is for certbot or lego to run" >&2
    exit 2
fi
[ "$renewed" = "$name" ] || exit 0

# Both are complete before either takes its place. Should Gatepost look between the two renames, it
# finds a pair that does not match, keeps the old one and looks again.
new_certificate=$(mktemp "$directory/.fullchain.XXXXXX")
new_key=$(mktemp "$directory/.privkey.XXXXXX")
trap 'rm -f "$new_certificate" "$new_key"' EXIT
install -m 0644 -g "$group" "$certificate" "$new_certificate"
install -m 0640 -g "$group" "$key" "$new_key"
mv -f "$new_key" "$directory/privkey.pem"
mv -f "$new_certificate" "$directory/fullchain.pem"

# Before its first start there is nothing to reload.
if systemctl --quiet is-active gatepost.service; then
    systemctl reload gatepost.service
fi
