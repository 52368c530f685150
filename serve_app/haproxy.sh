#!/bin/sh
# HAProxy as Ray Serve starts it, but for what Ray's template has no setting for; `haproxy.py` has Ray start this, MYGO_HAPROXY is HAProxy itself.
# - A limit of time for a request's headers: otherwise a client may send them one byte at a time, for ever.
# - No splicing of requests: with it HAProxy 2.8 often does not see that a client leaves which waits for its answer, and the engine works on
#   for nobody.
# - Errors in OpenAI's form, which its clients can read, and 503 where nobody can answer (Ray's file says 500 as plain text). What HAProxy says
#   of what cannot be read as HTTP, and of headers that do not come, is built into it.
set -eu

error() { # its file: status, reason, code, type, message, and more headers
    body="{\"error\":{\"message\":\"$5\",\"type\":\"$4\",\"param\":null,\"code\":\"$3\"}}"
    printf 'HTTP/1.1 %s %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n%b\r\n%s' \
        "$1" "$2" "${#body}" "${6:-}" "$body" >"$directory/$1.http"
    lines="$lines    errorfile $1 $directory/$1.http\\n"
}

config='' previous='' lines=''
for each in "$@"; do
    [ "$previous" = -f ] && config="$each"
    previous="$each"
done
if [ -n "$config" ] && ! grep -q 'errorfile 503 .*/503.http' "$config"; then # it has not been here: HAProxy starts anew with the same file
    grep -q 'timeout http-request' "$config" || lines="    timeout http-request ${MYGO_HEADERS_TIMEOUT_S:-30}s\\n"
    directory="$(dirname "$config")"
    error 502 'Bad Gateway' no_answer server_error 'The answer of the ingress could not be read. Try again.'
    error 503 'Service Unavailable' no_ingress service_unavailable 'No ingress can take the request now. Try again.' 'Retry-After: 1\r\n'
    error 504 'Gateway Timeout' no_answer timeout_error 'The ingress did not answer in time.'
    sed -e '/option splice-request/d' -e '/errorfile 50[234] /d' -e "/^defaults\$/a\\${lines%\\n}" "$config" >"$config.limited"
    mv "$config.limited" "$config" # Ray knows its processes by this path
fi
exec "$MYGO_HAPROXY" "$@"
