#!/bin/sh
# Run by PostgreSQL's image for a new cluster: creates one database per service, owned by the role of the same name. The password
# is read from the file of that name.
set -eu
for name in bank card identity; do
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set name="$name" --set password="$(cat "${SECRETS_DIR:-/run/secrets}/$name")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
