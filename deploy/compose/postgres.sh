#!/bin/sh
# The database roles of the compose file, made when the database is made: `stenograph` owns the tables and migrates them;
# `recorder` reads and writes rows, and can change no table.
set -eu
psql --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 \
    --set owner="$(cat /run/secrets/postgres/owner)" --set recorder="$(cat /run/secrets/postgres/recorder)" <<'SQL'
CREATE ROLE stenograph LOGIN PASSWORD :'owner';
CREATE ROLE recorder LOGIN PASSWORD :'recorder';
ALTER DATABASE stenograph OWNER TO stenograph;
REVOKE CONNECT, TEMPORARY ON DATABASE stenograph FROM PUBLIC;
GRANT CONNECT ON DATABASE stenograph TO recorder;
ALTER DEFAULT PRIVILEGES FOR ROLE stenograph GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO recorder;
ALTER DEFAULT PRIVILEGES FOR ROLE stenograph GRANT USAGE, SELECT ON SEQUENCES TO recorder;
-- `recorder rebuild` makes the new tables in a schema of their own.
ALTER DEFAULT PRIVILEGES FOR ROLE stenograph GRANT USAGE ON SCHEMAS TO recorder;
SQL
