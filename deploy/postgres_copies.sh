# As commons/store/copies.py, for PostgreSQL: read by sh in the service db, whose volume keeps the copies.
# revision DATABASE TABLE | copy DATABASE REVISION | newest DATABASE REVISION | restore DATABASE REVISION
set -eu
export PGHOST="${PGHOST:-/tmp}" PGUSER="${PGUSER:-labcommons}"
[ -n "${PGPASSWORD:-}" ] || export PGPASSWORD="$(cat /run/labcommons/postgres-password)"
folder="${COPIES:-/var/lib/postgresql/data/copies}"
now=$(date -u +%Y%m%dT%H%M%S)
ask() { psql -XAtq -v ON_ERROR_STOP=1 --dbname "$1" --command "$2"; }
newest() { ls "$folder/$1.before-$2"-*.dump 2>/dev/null | sort | tail -n 1; }

case $1 in
revision)
    if [ "$(ask "$2" "SELECT to_regclass('$3') IS NOT NULL")" = t ]; then
        ask "$2" "SELECT version_num FROM $3"
    fi
    ;;
copy)
    mkdir -p -m 0700 "$folder"
    pg_dump --format=custom --file="$folder/.new" "$2"
    sync "$folder/.new"
    made="$folder/$2.before-$3-$now.dump"
    mv "$folder/.new" "$made"
    # The newest of each of the last five versions of the tables.
    for old in "$folder/$2.before-$3"-*.dump; do
        [ "$old" = "$made" ] || rm -f -- "$old"
    done
    ls -t "$folder/$2".before-*.dump | tail -n +6 | while read -r old; do rm -f -- "$old"; done
    echo "$made"
    ;;
newest)
    newest "$2" "$3"
    ;;
restore)
    # Beside the one that is there; then both change their names in one transaction.
    file=$(newest "$2" "$3")
    ask postgres "DROP DATABASE IF EXISTS \"$2_new\" WITH (FORCE)"
    ask postgres "CREATE DATABASE \"$2_new\""
    pg_restore --exit-on-error --dbname "$2_new" "$file"
    for old in $(ask postgres "SELECT datname FROM pg_database WHERE datname LIKE '$2\\_until\\_%'"); do
        ask postgres "DROP DATABASE \"$old\" WITH (FORCE)"
    done
    until="$2_until_$(echo "$now" | tr A-Z a-z)"
    # Whoever is still there is sent away, and may have come back by the time of the move.
    for try in 1 2 3 4 5; do
        ask postgres "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$2'" >/dev/null
        ask postgres "BEGIN; ALTER DATABASE \"$2\" RENAME TO \"$until\";
            ALTER DATABASE \"$2_new\" RENAME TO \"$2\"; COMMIT" && break
        [ "$try" -lt 5 ]
    done
    echo "the database $until"
    ;;
esac
