#!/usr/bin/env bash
# Exits with 0 when every named model has a version that is AVAILABLE: the probe of compose.yaml and of Kubernetes.
#   model_available.sh MODEL...          (REST_PORT: 8501 unless set; MODEL/versions/2 asks for that version)
# TensorFlow Serving answers GET /v1/models/M with 200 as soon as it knows the model, also while it loads and when loading has
# failed: the status code does not tell, the body does. The image has no curl; bash opens the connection itself.
set -euo pipefail

for model in "${@:?the name of a model}"; do
  exec 3<>"/dev/tcp/127.0.0.1/${REST_PORT:-8501}"
  printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$model" >&3
  timeout 3 grep -q '"state": *"AVAILABLE"' <&3
  exec 3>&-
done
