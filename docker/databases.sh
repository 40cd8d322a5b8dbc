#!/bin/sh
# Makes the two databases of a party, each with a role that reaches it alone. PostgreSQL's image runs this once.
set -eu
for name in fedtasks airflow; do
  psql --quiet --set ON_ERROR_STOP=1 --set name="$name" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set password `cat /run/passwords/:name`
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name" ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
