#!/bin/sh
# Takes backups of Redis or Valkey:
#
#   backup.sh FOLDER [ARGUMENTS OF redis-cli]        one backup, for a scheduler such as cron or a CronJob
#   backup.sh --every HOURS FOLDER [ARGUMENTS]       one every so many hours, until SIGTERM
#   backup.sh --check HOURS FOLDER                   succeeds if the newest backup is younger: for health checks
#
# FOLDER/segment-estimator-<UTC time>.rdb is a backup that redis-check-rdb has accepted. BACKUP_KEEP (14) of them are kept.
# Redis has BACKUP_TIMEOUT (3600) seconds to send one. One run at a time writes into a folder; another one fails.
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
    # The dot: the folder may be a link.
    find "$folder/." -maxdepth 1 -type f -name 'segment-estimator-????????T??????Z.rdb' "$@"
}

# Whether there is a backup that is younger than so many hours.
has_recent() {
    [ -n "$(backups -mmin "-$(($1 * 60))")" ]
}

# Takes a backup in a subshell, which closes the file at its end. The name of a file that is not complete ends with .partial.
back_up() (
    # The lock is that of the open file. redis-cli inherits it, and so keeps it if it outlives a killed script.
    partial=$folder/segment-estimator.partial
    (: >>"$partial") 2>/dev/null || fail "user $(id -u) can't write $partial"
    exec 9>>"$partial"
    flock -n 9 || case $? in
        1) fail "another run is writing $partial" ;;
        *) fail "failed to lock $partial" ;;
    esac
    # Another run may have renamed it in between.
    [ "$partial" -ef /dev/fd/9 ] || fail "another run was writing $partial"
    # redis-cli keeps the end of a longer file.
    : >"$partial"
    find "$folder/." -maxdepth 1 -name 'segment-estimator-*.partial' -exec rm -f {} +
    file=$folder/segment-estimator-$(date -u +%Y%m%dT%H%M%SZ).rdb
    if [ -n "${REDIS_PASSWORD_FILE:-}" ]; then
        REDISCLI_AUTH=$(cat "$REDIS_PASSWORD_FILE") || discard "failed to read $REDIS_PASSWORD_FILE"
        export REDISCLI_AUTH
    fi
    # redis-cli waits without end for a Redis that hangs. Its messages have no password.
    status=0
    output=$(timeout -k 10 "$limit" "$cli" "$@" --rdb "$partial" 2>&1) || status=$?
    [ "$status" != 124 ] || discard "failed to take a backup: Redis did not send it within $limit s (BACKUP_TIMEOUT)"
    if [ "$status" != 0 ] || [ ! -s "$partial" ]; then
        discard "failed to take a backup: $(echo "$output" | tail -n 1)"
    fi
    output=$("$check" "$partial" 2>&1) ||
        discard "failed to take a backup, since redis-check-rdb refuses it: $(echo "$output" | tail -n 1)"
    # On disk before older ones are removed.
    { sync "$partial" && mv "$partial" "$file"; } || discard "failed to write $file"
    log "wrote $file ($(wc -c <"$file" | tr -d ' ') bytes)"
    # A Redis that lost its data must not cost the backups of the data.
    if echo "$output" | grep -q '^\[info\] 0 keys read'; then
        log "Redis is empty, so no earlier backup is removed"
        return
    fi
    # Their names have the times. The one that was just written stays, whatever the others claim.
    backups ! -name "${file##*/}" -exec basename {} \; | sort -r | tail -n "+$keep" | while read -r old; do
        rm -f "$folder/$old"
        log "removed $folder/$old"
    done
)

# Removes the incomplete backup, and fails.
discard() {
    rm -f "$partial"
    fail "$*"
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
limit=${BACKUP_TIMEOUT:-3600}
case $limit in '' | *[!0-9]* | 0* | ???????*) fail "BACKUP_TIMEOUT must be 1 to 999999 seconds, and is $limit" ;; esac

if [ "$mode" = --check ]; then
    has_recent "$hours" || fail "there is no backup of the last $hours hours in $folder"
    exit 0
fi
for needed in flock timeout; do
    command -v "$needed" >/dev/null || fail "there is no $needed on PATH"
done
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
