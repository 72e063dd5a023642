#!/usr/bin/env bash
# Writes TensorFlow Serving's ssl.config for mutual TLS from three PEM files.
#   make_ssl_config.sh SERVER_KEY SERVER_CERTIFICATE CLIENTS_CA ssl.secret.config
# The private key is in it, so its owner alone may read it. The server is user 65534 (nobody) in its container: make that
# the owner.
set -euo pipefail

if [ $# -ne 4 ]; then
  echo "usage: $0 SERVER_KEY SERVER_CERTIFICATE CLIENTS_CA OUTPUT" >&2
  exit 2
fi

field() { # a text proto joins strings that follow each other: one a line
  grep -q -e "-----BEGIN $3" "$2" || { echo "$2: no PEM block \"$3\"" >&2; exit 1; }
  echo "$1:"
  tr -d '\r' < "$2" | sed 's/.*/  "&\\n"/'
}
umask 077
partial=$4.$$.secret.config # a name that git ignores too
trap 'rm -f "$partial"' EXIT
{
  field server_key "$1" ".*PRIVATE KEY"
  field server_cert "$2" CERTIFICATE
  field custom_ca "$3" CERTIFICATE
  echo "client_verify: true"
} > "$partial"
mv -f "$partial" "$4"
echo "$4: for its owner alone; the server's container reads it as user 65534: sudo chown 65534 $4" >&2
