#!/bin/sh
# HAProxy as Ray Serve starts it, but for what Ray's template has no setting for. A limit of time for a request's headers: otherwise a client
# may send them one byte at a time, for ever. No splicing of requests: with it HAProxy 2.8 often does not see that a client leaves which waits
# for its answer, and the engine works on for nobody. `haproxy.py` has Ray start this; MYGO_HAPROXY is HAProxy itself.
set -eu
config='' previous=''
for each in "$@"; do
    [ "$previous" = -f ] && config="$each"
    previous="$each"
done
if [ -n "$config" ] && ! grep -q 'timeout http-request' "$config"; then
    sed -e '/option splice-request/d' -e "/^defaults\$/a\\    timeout http-request ${MYGO_HEADERS_TIMEOUT_S:-30}s" "$config" >"$config.limited"
    mv "$config.limited" "$config" # Ray knows its processes by this path
fi
exec "$MYGO_HAPROXY" "$@"
