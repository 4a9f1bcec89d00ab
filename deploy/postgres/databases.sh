#!/bin/sh
# Run by PostgreSQL's image when the cluster is new: a database for each service, owned by a role of its name, whose password is
# the file of that name.
set -eu
for name in bank card identity; do
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set name="$name" --set password="$(cat "${SECRETS_DIR:-/run/secrets}/$name")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
