#!/bin/sh
# Takes backups of Redis or Valkey:
#
#   backup.sh FOLDER [ARGUMENTS OF redis-cli]        one backup, for a scheduler such as cron or a CronJob
#   backup.sh --every HOURS FOLDER [ARGUMENTS]       one every so many hours, until SIGTERM
#   backup.sh --check HOURS FOLDER                   succeeds if the newest backup is younger: for health checks
#
# FOLDER/segment-estimator-<UTC time>.rdb is a backup that redis-check-rdb has accepted. BACKUP_KEEP (14) of them are kept.
# REDIS_PASSWORD_FILE names a file with the password, so that no process shows it. The user needs +ping +sync +psync +replconf.
#
#   backup.sh /var/backups -h redis.example.internal --user backup
#   backup.sh /var/backups -s /srv/data/redis/redis.sock
set -eu
umask 077

log() {
    echo "backup: $*" >&2
}

fail() {
    log "$*"
    exit 1
}

tool() {
    command -v "redis-$1" || command -v "valkey-$1" || fail "there is no redis-$1 or valkey-$1 on PATH"
}

# Prints the backups of the folder, with these conditions for find.
backups() {
    find "$folder" -maxdepth 1 -name 'segment-estimator-????????T??????Z.rdb' "$@"
}

# Whether there is a backup that is younger than so many hours.
has_recent() {
    [ -n "$(backups -mmin "-$(($1 * 60))")" ]
}

# Takes a backup. The name of a file that is not complete ends with .partial.
back_up() {
    find "$folder" -maxdepth 1 -name 'segment-estimator-*.partial' -exec rm -f {} +
    file=$folder/segment-estimator-$(date -u +%Y%m%dT%H%M%SZ).rdb
    if [ -n "${REDIS_PASSWORD_FILE:-}" ]; then
        REDISCLI_AUTH=$(cat "$REDIS_PASSWORD_FILE") || return 1
        export REDISCLI_AUTH
    fi
    # Its own messages appear if it fails. They have no password.
    if ! output=$("$cli" "$@" --rdb "$file.partial" 2>&1) || [ ! -s "$file.partial" ]; then
        rm -f "$file.partial"
        log "failed to take a backup: $(echo "$output" | tail -n 1)"
        return 1
    fi
    if ! output=$("$check" "$file.partial" 2>&1); then
        rm -f "$file.partial"
        log "failed to take a backup, since redis-check-rdb refuses it: $(echo "$output" | tail -n 1)"
        return 1
    fi
    # On disk before older ones are removed.
    if ! sync "$file.partial" || ! mv "$file.partial" "$file"; then
        rm -f "$file.partial"
        log "failed to write $file"
        return 1
    fi
    log "wrote $file ($(wc -c <"$file" | tr -d ' ') bytes)"
    # Their names have the times.
    backups -exec basename {} \; | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
        rm -f "$folder/$old"
        log "removed $folder/$old"
    done
}

usage="usage: backup.sh [--every HOURS | --check HOURS] FOLDER [ARGUMENTS OF redis-cli]"
mode=once
case ${1:-} in
--every | --check)
    mode=$1 hours=${2:-}
    case $hours in '' | *[!0-9]* | 0* | ?????*) fail "$usage" ;; esac
    shift 2
    ;;
esac
[ $# -ge 1 ] || fail "$usage"
folder=$1
shift
# find takes a name with a dash for a condition.
case $folder in /*) ;; *) folder=./$folder ;; esac
[ -d "$folder" ] || fail "$folder is no folder"
[ "$mode" = --check ] || [ -w "$folder" ] || fail "user $(id -u) can't write into $folder"
keep=${BACKUP_KEEP:-14}
case $keep in '' | *[!0-9]* | 0* | ?????*) fail "BACKUP_KEEP must be a number of backups from 1 to 9999, and is $keep" ;; esac

if [ "$mode" = --check ]; then
    has_recent "$hours" || fail "there is no backup of the last $hours hours in $folder"
    exit 0
fi
cli=$(tool cli) check=$(tool check-rdb)
if [ "$mode" = once ]; then
    back_up "$@"
    exit
fi
# A shell that waits for a command in the foreground takes no signal.
sleeping=
trap '[ -z "$sleeping" ] || kill "$sleeping"; exit 0' TERM INT
while :; do
    # After a restart the last one may be recent enough.
    if has_recent "$hours" || back_up "$@"; then
        pause=600
    else
        pause=60
    fi
    sleep "$pause" &
    sleeping=$!
    wait "$sleeping"
done
