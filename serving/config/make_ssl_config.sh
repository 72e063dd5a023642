#!/usr/bin/env bash
# Prints TensorFlow Serving's ssl.config for mutual TLS from three PEM files.
#   make_ssl_config.sh SERVER_KEY SERVER_CERTIFICATE CLIENTS_CA > ssl.secret.config
set -euo pipefail

if [ $# -ne 3 ]; then
  echo "usage: $0 SERVER_KEY SERVER_CERTIFICATE CLIENTS_CA" >&2
  exit 2
fi

umask 077
field() { # a text proto joins strings that follow each other: one a line
  grep -q -e "-----BEGIN $3" "$2" || { echo "$2: no PEM block \"$3\"" >&2; exit 1; }
  echo "$1:"
  tr -d '\r' < "$2" | sed 's/.*/  "&\\n"/'
}
field server_key "$1" ".*PRIVATE KEY"
field server_cert "$2" CERTIFICATE
field custom_ca "$3" CERTIFICATE
echo "client_verify: true"
