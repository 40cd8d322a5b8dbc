#!/bin/sh
# The demo in containers, as `make demo-compose` runs it; its last line is that of `make demo`.
# KEEP=1 leaves all of it up. BUILD= (empty) takes images that are there, of FEDTASKS_IMAGES and FEDTASKS_TAG.
set -eu
cd "$(dirname "$0")"

if ! docker compose version >/dev/null 2>&1 || ! docker info >/dev/null 2>&1; then
  echo "The demo in containers needs Docker, whose engine answers, with Compose; \`make demo\` does without." >&2
  exit 1
fi
# What an earlier demo left is removed: its containers and volumes, never an image.
down="docker compose --profile demo down --volumes"

if [ -n "${BUILD-1}" ]; then docker compose --profile demo build >&2; fi
$down >/dev/null 2>&1 || true
[ -n "${KEEP-}" ] || trap '$down >/dev/null 2>&1' EXIT
docker compose up --detach >&2
docker compose --profile demo run --rm -T bank-train
