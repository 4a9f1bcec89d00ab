#!/bin/sh
# PostgreSQL's image runs this script for a new cluster. The script creates one database per service, owned by a role of the
# same name. The secret file of the same name contains the role's password.
set -eu
for name in bank card identity; do
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set name="$name" --set password="$(cat "${SECRETS_DIR:-/run/secrets}/$name")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
