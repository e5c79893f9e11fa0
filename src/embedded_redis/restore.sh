# Restores a backup into Redis's data folder, which is the working folder. No server may use the folder. The command `restore` runs
# this for the private Redis, scripts/restore in the container of docker compose.
#
#   restore name                     prints a name for the data that `put` is to replace
#   restore put NAME BACKUP          replaces the data, which is kept under NAME; prints what `count` prints
#   restore undo NAME                brings back the data that is kept under NAME, if `put` got so far; may be repeated
#   restore count [CLIENT OPTION...] prints the number of keys without a TTL, of the members of their sorted sets, and of segments
#
# The environment may set
#
#   KEY_PREFIX     what the keys of the data set begin with
#   UNRECORDED     yes: take a backup without the record of a data set, too
#   EMPTY          yes: replace data by a backup without a segment and a history of the data set, too
#   ONE_DATABASE   yes: refuse a backup with keys in another database than 0
#
# A server of its own loads a copy of the backup first, so that a bad one changes nothing. A rename then replaces the data at once.
set -eu
umask 077

fail() {
    echo "$*" >&2
    exit 1
}

find_tool() {
    command -v "redis-$1" || command -v "valkey-$1" || fail "there is no redis-$1 or valkey-$1 on PATH"
}

# A record as RECORD_UNLESS_NEWER in src/store/layout decides it. No record is as long as 4 KiB.
is_record="
    local function is_record(key)
        if redis.call('TYPE', key).ok ~= 'string' then return false end
        local is_json, record = pcall(cjson.decode, redis.call('GETRANGE', key, 0, 4095))
        return is_json and type(record) == 'table' and type(record.epoch) == 'number' and type(record.keys) == 'string'
    end"

# Counts what is in the server. Sets `keys`, `members` and `segments`, and of the data set with KEY_PREFIX `records` and `own`: the keys of
# its segments, indices and histories.
inspect() {
    keyspace=$("$cli" "$@" info keyspace)
    keys=0 members=0 segments=0 records=0 own=0
    # A key with a TTL may expire at any moment. Visits have none.
    for line in $(echo "$keyspace" | sed -n 's/^db\([0-9]*\):keys=\([0-9]*\),expires=\([0-9]*\).*/\1:\2:\3/p'); do
        database=${line%%:*} numbers=${line#*:}
        keys=$((keys + ${numbers%:*} - ${numbers#*:}))
        found=$("$cli" "$@" -n "$database" eval "$is_record
            local members, records, own, indices, cursor = 0, 0, 0, {}, '0'
            local function found(segments) return string.format('%.0f %.0f %.0f %.0f', members, segments, records, own) end
            repeat
                local page = redis.call('SCAN', cursor, 'COUNT', 1000)
                cursor = page[1]
                for _, key in ipairs(page[2]) do
                    local type = redis.call('TYPE', key).ok
                    -- Partitions have records and indices of their own.
                    local name = key:sub(1, #ARGV[1]) == ARGV[1] and key:sub(#ARGV[1] + 1):gsub('^{[pq]%d+}:', '') or ''
                    if type == 'zset' and redis.call('TTL', key) == -1 then
                        members = members + redis.call('ZCARD', key)
                        if name == 'segments' then table.insert(indices, key) end
                        if name == 'segments' or name:find('^segment:') then own = own + 1 end
                    elseif (type == 'list' or type == 'stream') and name:find('^history:.') then
                        own = own + 1
                    elseif name == 'layout' and is_record(key) then
                        records = records + 1
                    end
                end
            until cursor == '0'
            local names, segments = {}, 0
            for _, index in ipairs(indices) do
                if #indices == 1 then return found(redis.call('ZCARD', index)) end
                for _, name in ipairs(redis.call('ZRANGE', index, 0, -1)) do
                    if not names[name] then names[name], segments = true, segments + 1 end
                end
            end
            return found(segments)" 0 "${KEY_PREFIX:-}")
        case $found in '' | *[!0-9\ ]*) fail "Redis doesn't count: $found" ;; esac
        members=$((members + ${found%% *}))
        # The service uses that database alone.
        if [ "$database" = 0 ]; then
            read -r _ segments records own <<EOF
$found
EOF
        fi
    done
    # An error is an answer, too.
    case $keyspace in '# Keyspace'*) ;; *) fail "Redis doesn't count: $keyspace" ;; esac
}

count() {
    inspect "$@"
    echo "$keys $members $segments"
}

# Prints the number of keys without a TTL in the RDB file $1, behind which there must be nothing.
count_keys_of_file() {
    if ! checked=$("$check" "$1" 2>&1); then
        why=$(echo "$checked" | sed -n 's/^\[offset [0-9]*\] //p' | tail -n 1)
        fail "the backup is damaged, or of a later version than this Redis: ${why:-$checked}"
    fi
    # What was written since the last rewrite is in other files.
    case $checked in
    *"AUX FIELD aof-base = '1'"*) fail "the backup is the base of an append-only file, which lacks all that was written later; copy the whole folder appendonlydir, or back up with redis-cli --rdb" ;;
    esac
    end=$(echo "$checked" | sed -n 's/^\[offset \([0-9]*\)\] .*RDB looks OK.*/\1/p')
    behind=$(($(wc -c <"$1") - ${end:-0}))
    if [ "$behind" -gt 0 ] && [ "$(tail -c "$behind" "$1" | head -c 1 | tr -d '\000')" = '*' ]; then
        fail "the file is an append-only file that begins as an RDB file and goes on with commands, as appendonly.aof of Redis 6 is; start a Redis on it, and take the backup with \`redis-cli --rdb FILE\`"
    fi
    [ "$behind" = 0 ] || fail "$behind bytes stand behind the end of the RDB file, as \`redis-cli --rdb -\` writes them; take the backup again, into a file"
    keys=$(echo "$checked" | sed -n 's/^\[info\] \([0-9]*\) keys read$/\1/p')
    expires=$(echo "$checked" | sed -n 's/^\[info\] \([0-9]*\) expires$/\1/p')
    echo $((keys - expires))
}

# Prints another key prefix than KEY_PREFIX that a data set has, behind the word `record` if it has a record, and else behind `keys` that of the
# most keys that are named as segments and indices; nothing if there is none. A record in a partition counts as well.
find_prefix() {
    "$cli" "$@" eval "$is_record
        local prefixes, cursor = {}, '0'
        repeat
            local page = redis.call('SCAN', cursor, 'COUNT', 1000)
            cursor = page[1]
            for _, key in ipairs(page[2]) do
                local prefix, rest = key:match('^([^{}]*){[pq]%d+}:(.*)$')
                if not prefix then
                    local start = key:find('segment:', 1, true) or key:find('segments$') or key:find('layout$') or #key + 1
                    prefix, rest = key:sub(1, start - 1), key:sub(start)
                end
                if prefix ~= ARGV[1] and #prefix <= 64 and not prefix:find('[%c{}]') and not prefix:find('^history:') then
                    if rest == 'layout' and is_record(key) then return 'record ' .. prefix end
                    if (rest == 'segments' or rest:find('^segment:')) and redis.call('TYPE', key).ok == 'zset' then
                        prefixes[prefix] = (prefixes[prefix] or 0) + 1
                    end
                end
            end
        until cursor == '0'
        local most, found = 0, ''
        for prefix, keys in pairs(prefixes) do
            if keys > most then most, found = keys, 'keys ' .. prefix end
        end
        return found" 0 "${KEY_PREFIX:-}"
}

# Prints why the server with the log $1 has not loaded the backup. Its own advice is to cut data off.
why_not_loaded() {
    log=$(cat "$1" 2>/dev/null) || :
    case $log in
    *'Unexpected end of file'*) echo "it breaks off within a command" ;;
    *'Bad file format'*) echo "something in it is no command" ;;
    *)
        last=$(echo "$log" | grep '[^[:space:]]' | tail -n 1)
        echo "${last:-it ended without a word}"
        ;;
    esac
}

put() {
    server=$(find_tool server)
    # That of the other engine may be installed as well, and doesn't read the files of this one.
    engine=${server##*/} engine=${engine%-server}
    check=$(command -v "$engine-check-rdb") || check=$(find_tool check-rdb)
    old=$1 backup=$2 pid=
    [ ! -e "$old" ] || fail "there is a $old already; try again"
    new=.restore-work
    # What was left by one that was killed.
    rm -rf "$new"
    mkdir "$new"
    trap 'if [ -n "$pid" ]; then kill -KILL "$pid" 2>/dev/null || :; fi; rm -rf "$new" restore.sock' EXIT
    trap 'exit 1' HUP INT TERM

    why=$(cat "$backup" 2>&1 >"$new/backup") || fail "failed to copy the backup: $why"
    case $(head -c 5 "$new/backup" | tr -d '\000') in
    REDIS | VALKE) expected=$(count_keys_of_file "$new/backup") ;;
    # An append-only file that is written as commands.
    '*'*) expected= ;;
    *) fail "the file is no backup: it begins neither as an RDB file nor as an append-only file (unpack a packed one)" ;;
    esac

    # Every version from 6.2 on takes over a file of this name as it starts.
    ln "$new/backup" "$new/appendonly.aof" 2>/dev/null || cp "$new/backup" "$new/appendonly.aof"
    (
        cd "$new"
        exec "$server" --port 0 --unixsocket ../restore.sock --dir . --logfile log --daemonize no \
            --appendonly yes --aof-load-truncated no --auto-aof-rewrite-percentage 0 --save '' --databases 10000
    ) </dev/null >/dev/null 2>&1 &
    pid=$!
    until [ "$("$cli" -s restore.sock ping 2>/dev/null)" = PONG ]; do
        if ! kill -0 "$pid" 2>/dev/null; then
            pid=
            fail "Redis doesn't load the backup: $(why_not_loaded "$new/log")"
        fi
        sleep 0.1
    done
    inspect -s restore.sock
    elsewhere=$(echo "$keyspace" | sed -n 's/^db\([1-9][0-9]*\):keys=\([0-9]*\),.*/ and \2 keys in database \1/p' | tr -d '\r\n')
    if [ -n "$expected" ] && [ "$expected" != "$keys" ]; then
        fail "Redis has loaded $keys of the $expected keys of the backup"
    elif [ "$keys" = 0 ]; then
        fail "the backup is empty; to begin an empty data set, start a service on an empty folder or volume"
    elif [ "${ONE_DATABASE:-}" = yes ] && [ -n "$elsewhere" ]; then
        fail "the backup has${elsewhere# and}, and the private Redis has database 0 alone"
    fi
    if [ "$records" = 0 ] && { [ "${UNRECORDED:-}" != yes ] || [ "$own" = 0 ]; }; then
        # A data set with another prefix would be restored, and nothing of it counted.
        found=$(find_prefix -s restore.sock)
        other=${found#* }
        is_to_be="and the one with \"${KEY_PREFIX:-}\" is to be restored; set redis_key_prefix to \"$other\""
        case $found in
        'record '*) fail "the backup has the data set with redis_key_prefix \"$other\" (${other}layout), $is_to_be" ;;
        'keys '*) if [ "$own" = 0 ]; then fail "the backup has keys of a data set with redis_key_prefix \"$other\", $is_to_be"; fi ;;
        esac
        if [ "${UNRECORDED:-}" != yes ]; then
            fail "the backup has no record of a data set of this service (${KEY_PREFIX:-}layout), but $keys keys, among them $segments segments$elsewhere; with --unrecorded one of a version without records is restored"
        fi
    fi
    if [ "$own" = 0 ] && [ "${EMPTY:-}" != yes ] && { [ -d appendonlydir ] || [ -s appendonly.aof ]; }; then
        fail "the backup has no segment and no history of the data set with redis_key_prefix \"${KEY_PREFIX:-}\", and would replace the data that is there; with --empty it does"
    fi
    "$cli" -s restore.sock shutdown nosave >/dev/null 2>&1 || :
    wait "$pid" || :
    pid=

    sync
    kill -0 "$PPID" 2>/dev/null || fail "stopped"
    mkdir "$old"
    if [ -d appendonlydir ]; then
        # Passed over while there is the folder, so the last rename is the one that counts.
        mv -f "$new/backup" appendonly.aof
        mv appendonlydir "$old/"
    else
        # Before 7.0 this file is the data.
        if [ -e appendonly.aof ]; then ln appendonly.aof "$old/" || cp -p appendonly.aof "$old/"; fi
        mv -f "$new/backup" appendonly.aof
    fi
    sync
    echo "$keys $members $segments"
}

name() {
    name=before-restore-$(date -u +%Y%m%dT%H%M%SZ)
    while [ -e "$name" ]; do
        sleep 1
        name=before-restore-$(date -u +%Y%m%dT%H%M%SZ)
    done
    echo "$name"
}

undo() {
    failed=failed-${1#before-}
    if [ ! -d "$1" ]; then
        rm -rf "$failed"
        return 0
    fi
    # Killed at any point and run again, it goes on: nothing of the old data is in force before the mark, and nothing of the new behind it.
    mkdir -p "$failed"
    if [ ! -e "$failed/moved" ]; then
        # `put` did not get so far as to move anything there.
        if [ -z "$(ls -A "$1")" ]; then
            rmdir "$1" "$failed"
            return 0
        fi
        for part in appendonlydir appendonly.aof; do
            if [ -e "$part" ]; then mv "$part" "$failed/"; fi
        done
        : >"$failed/moved"
        sync
    fi
    for part in appendonlydir appendonly.aof; do
        if [ -e "$1/$part" ]; then mv "$1/$part" .; fi
    done
    sync
    rmdir "$1"
    rm -rf "$failed"
}

cli=$(find_tool cli)
action=$1
shift
"$action" "$@"
