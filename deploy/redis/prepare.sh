#!/bin/sh
# Prepares the start of docker compose's Redis, and ends: prepare.sh DATA_FOLDER...
#
# Writes the password into /run/redis, as `password` for clients and as `password.conf` for the server: ESTIMATOR_REDIS_PASSWORD_FILE if it
# names a file, otherwise a random one, which is made once. Gives the data to the user of the servers, since images differ in theirs.
set -eu
umask 077

# The user of the servers, and the user of the estimator's image. Both are fixed in docker-compose.yml and the Dockerfile.
redis=999 estimator=65532

fail() {
    echo "$*" >&2
    exit 1
}

# Prints a size such as 2gb in bytes, as Docker reads it. Redis takes 2g for less, 2,000,000,000, so a limit suffices for both.
bytes() {
    number=$(echo "$2" | sed 's/[kKmMgG]*[bB]*$//')
    case $number in '' | *[!0-9]*) fail "$1=$2: this is no size such as 2gb" ;; esac
    case ${2#"$number"} in
    '' | [bB]) echo "$number" ;;
    [kK] | [kK][bB]) echo "$((number * 1024))" ;;
    [mM] | [mM][bB]) echo "$((number * 1024 * 1024))" ;;
    [gG] | [gG][bB]) echo "$((number * 1024 * 1024 * 1024))" ;;
    *) fail "$1=$2: this is no size such as 2gb" ;;
    esac
}

# Another Redis, which must not get the password of this one.
for name in ESTIMATOR_REDIS_URL ESTIMATOR_REDIS_CLUSTER ESTIMATOR_REDIS_SENTINEL; do
    [ -z "$(printenv $name)" ] ||
        fail "$name is set, and this profile has a Redis of its own: set COMPOSE_PROFILES=external, or remove $name"
done

# A fork may need all of the memory twice. Above the limit the kernel would kill Redis.
max=$(bytes REDIS_MAX_MEMORY "$REDIS_MAX_MEMORY")
limit=$(bytes REDIS_MEMORY_LIMIT "$REDIS_MEMORY_LIMIT")
[ "$max" -gt 0 ] || fail "REDIS_MAX_MEMORY=$REDIS_MAX_MEMORY: Redis would have no bound below REDIS_MEMORY_LIMIT=$REDIS_MEMORY_LIMIT"
needed=$((2 * max / 1048576))mb
[ $((2 * max % 1073741824)) != 0 ] || needed=$((2 * max / 1073741824))gb
[ "$limit" -ge $((2 * max)) ] ||
    fail "REDIS_MAX_MEMORY=$REDIS_MAX_MEMORY needs a REDIS_MEMORY_LIMIT of twice as much, since Redis forks, and it is $REDIS_MEMORY_LIMIT: set REDIS_MEMORY_LIMIT=$needed"

folder=/run/redis
if [ -n "${ESTIMATOR_REDIS_PASSWORD_FILE:-}" ]; then
    password=$(cat "$ESTIMATOR_REDIS_PASSWORD_FILE") || fail "failed to read ESTIMATOR_REDIS_PASSWORD_FILE"
else
    if [ ! -s $folder/made ]; then
        od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >$folder/made.new
        mv $folder/made.new $folder/made
    fi
    password=$(cat $folder/made)
fi
[ -n "$password" ] || fail "ESTIMATOR_REDIS_PASSWORD_FILE: the file is empty"
[ "$(printf %s "$password" | wc -l)" = 0 ] || fail "ESTIMATOR_REDIS_PASSWORD_FILE: the file has more than one line"

# Written aside and renamed, so that nothing reads half of it.
put() {
    cat >"$folder/$1.new"
    chown "$estimator:$redis" "$folder/$1.new"
    chmod 440 "$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
}
chmod 755 $folder
printf %s "$password" | put password
quoted=$(printf %s "$password" | sed 's/["\\]/\\&/g')
# The second is what a replica shows to its master.
printf 'requirepass "%s"\nmasterauth "%s"\n' "$quoted" "$quoted" | put password.conf

for data; do
    # Once, after a change of the image or of the version: a large folder has few files.
    find "$data" \( ! -user $redis -o ! -group $redis \) -exec chown $redis:$redis {} +
done
