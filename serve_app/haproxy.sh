#!/bin/sh
# HAProxy as Ray Serve starts it, with a limit of time for a request's headers, which Ray's template has a place for and no setting:
# otherwise a client may send them one byte at a time, for ever. `haproxy.py` has Ray start this; MYGO_HAPROXY is HAProxy itself.
set -eu
config='' previous=''
for each in "$@"; do
    [ "$previous" = -f ] && config="$each"
    previous="$each"
done
if [ -n "$config" ] && ! grep -q 'timeout http-request' "$config"; then
    sed "/^defaults\$/a\\    timeout http-request ${MYGO_HEADERS_TIMEOUT_S:-30}s" "$config" >"$config.limited"
    mv "$config.limited" "$config" # Ray knows its processes by this path
fi
exec "$MYGO_HAPROXY" "$@"
