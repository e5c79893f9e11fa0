#!/bin/sh
# Backs up a Redis into a file of its own, which `segment-estimator restore` and scripts/restore take:
#
#   backup.sh [REDIS-CLI OPTION...]    such as -h redis.example.internal --user backup --tls
#   backup.sh --is-fresh               exits 0 if the newest backup is younger than two periods of BACKUP_EVERY
#
#   BACKUP_FOLDER          where they are [default: /backups]
#   BACKUP_KEEP            how many are kept; older ones are removed after a new one is complete [default: 14]
#   BACKUP_EVERY           a period such as 24h or 30m, in which one backup is made again and again; without it, one is made at once
#   REDIS_PASSWORD_FILE    file with the password
#
# The files are segments-<UTC>.rdb. One that is there is complete and was checked. A file that isn't ends in .partial.
# In a cluster, run one for each master, with a folder of its own.
set -eu
umask 077
folder=${BACKUP_FOLDER:-/backups} keep=${BACKUP_KEEP:-14} every=${BACKUP_EVERY:-}

log() {
    echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $*" >&2
}

fail() {
    log "$*"
    exit 1
}

case $keep in '' | *[!0-9]* | 0) fail "BACKUP_KEEP=$keep: this is no number from 1 on" ;; esac
number=${every%[mh]}
case $number in *[!0-9]* | 0*) fail "BACKUP_EVERY=$every: this is no period such as 24h or 30m" ;; esac
case $every in
'') minutes= ;;
*h) minutes=$((number * 60)) ;;
*m) minutes=$number ;;
*) fail "BACKUP_EVERY=$every: this is no period such as 24h or 30m" ;;
esac

# Prints the names of the backups, the newest first. Their names are their order.
list() {
    ls -r "$folder" | grep '^segments-[0-9TZ]*\.rdb$' || :
}

# Exits 0 if there is a backup that is younger than $1 minutes.
is_younger() {
    newest=$(list | head -n 1)
    [ -n "$newest" ] && [ -n "$(find "$folder/$newest" -mmin "-$1")" ]
}

back_up() {
    name=segments-$(date -u +%Y%m%dT%H%M%SZ).rdb
    partial=$folder/$name.partial
    # What was left by one that was killed.
    rm -f "$folder"/segments-*.rdb.partial
    if [ -n "${REDIS_PASSWORD_FILE:-}" ]; then
        # In the environment of redis-cli alone, and on no command line.
        REDISCLI_AUTH=$(cat "$REDIS_PASSWORD_FILE") || return 1
        export REDISCLI_AUTH
    fi
    # Its messages are shown if it fails: it counts bytes.
    if ! said=$("$cli" "$@" --rdb "$partial" 2>&1); then
        log "failed to back up: $(echo "$said" | tail -n 1)"
        return 1
    fi
    if ! said=$("$check" "$partial" 2>&1); then
        log "failed to back up: the file is damaged: $(echo "$said" | tail -n 1)"
        rm -f "$partial"
        return 1
    fi
    sync
    mv "$partial" "$folder/$name"
    log "backed up into $folder/$name ($(wc -c <"$folder/$name") bytes, $(echo "$said" | sed -n 's/^\[info\] \([0-9]* keys\) read$/\1/p'))"
    for old in $(list | tail -n "+$((keep + 1))"); do
        rm -f "$folder/$old"
        log "removed $folder/$old"
    done
}

if [ "${1:-}" = --is-fresh ]; then
    is_younger $((2 * ${minutes:-1440})) && exit 0
    fail "the newest backup in $folder is older than two periods"
fi

find_tool() {
    command -v "redis-$1" || command -v "valkey-$1" || fail "there is no redis-$1 or valkey-$1 on PATH"
}
cli=$(find_tool cli)
check=$(find_tool check-rdb)
[ -w "$folder" ] || fail "$folder isn't a folder that user $(id -u) can write into"

if [ -z "$every" ]; then
    back_up "$@"
    exit
fi
# As the first process of a container the shell would ignore these.
trap 'exit 0' TERM INT
log "backing up every $every into $folder, keeping $keep"
while :; do
    # After a restart the next one is due when it would have been.
    is_younger "$minutes" || back_up "$@" || log "trying again within a minute"
    sleep 60 &
    wait $! || :
done
