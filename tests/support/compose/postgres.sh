#!/bin/bash
# What PostgreSQL's own image does, as far as Compose files here rely on it.
set -euo pipefail
export PATH=/usr/lib/postgresql/15/bin:$PATH POSTGRES_USER=postgres
if [[ ! -s $PGDATA/PG_VERSION ]]; then
  initdb --pgdata "$PGDATA" --username postgres --pwfile "$POSTGRES_PASSWORD_FILE" --auth-local trust \
    --auth-host scram-sha-256 >/dev/null
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  pg_ctl --pgdata "$PGDATA" --wait --log /tmp/init.log --options "-c listen_addresses=''" start >/dev/null
  for script in /docker-entrypoint-initdb.d/*.sh; do sh "$script"; done
  pg_ctl --pgdata "$PGDATA" --wait --mode fast stop >/dev/null
fi
exec postgres -D "$PGDATA" -c "listen_addresses=*"
