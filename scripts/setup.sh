# Sourced by the scripts beside it. `set_up` makes the environment in .venv, and does nothing when it is up to date.
# What it heeds: PYTHON (interpreter), MYGO_VARIANT (cpu or gpu), PIP_FIND_LINKS and pip's configured index (mirrors).
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT" || exit 1
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}" # trust what the machine trusts, as pip does

say() { printf '[mygo] %s\n' "$*" >&2; }

fail() { # what went wrong, what to do
    say "error: $1"
    say "what to do: $2"
    exit 1
}

set_up() {
    local variant stamp
    variant="${MYGO_VARIANT:-$(detect_variant)}"
    stamp="$(fingerprint "$variant")"
    export VIRTUAL_ENV="$ROOT/.venv" PATH="$ROOT/.venv/bin:$PATH"
    [ "$(cat .venv/mygo-stamp 2>/dev/null)" = "$stamp" ] && return
    say "setting up .venv for $variant (once; about 4 GB of packages)"
    make_venv
    install_packages "$variant"
    echo "$stamp" >.venv/mygo-stamp
    say "environment ready"
}

detect_variant() {
    if nvidia-smi -L >/dev/null 2>&1; then echo gpu; else echo cpu; fi
}

fingerprint() { # of everything that an installed environment depends on
    { echo "$1 $ROOT"; cat "scripts/locks/$1.txt" scripts/locks/uv.txt pyproject.toml scripts/setup.sh; } | sha256sum | cut -d' ' -f1
}

make_venv() {
    local python
    if [ ! -x .venv/bin/python ]; then
        python="$(find_python)"
        say "1/3 virtual environment with $("$python" --version)"
        "$python" -m venv .venv || fail "the virtual environment could not be made" \
            "install Python's venv module (Debian and Ubuntu: apt-get install python3-venv), remove .venv, and try again"
    fi
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r scripts/locks/uv.txt || fail "uv could not be installed" \
        "check the network, or pip's index settings (pip config list), and try again"
}

find_python() { # 3.11 first: it is the version that the locks were made for
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11, 3.12 or 3.13 was found" "install one, or name it: PYTHON=/path/to/python3.11 $0"
}

install_packages() {
    local variant="$1" options=() index
    index="$(.venv/bin/python -m pip config get global.index-url 2>/dev/null)" && export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
    if [ "$variant" = cpu ]; then
        options+=(--override scripts/locks/cpu-overrides.txt)
        if compgen -G "${PIP_FIND_LINKS:-/nonexistent}/torch-*+cpu-*.whl" >/dev/null; then
            options+=(--find-links "$PIP_FIND_LINKS")
        else
            options+=(--extra-index-url "$TORCH_CPU_INDEX" --index-strategy unsafe-best-match)
        fi
    fi
    say "2/3 packages from scripts/locks/$variant.txt"
    .venv/bin/uv pip install -q --verify-hashes --compile-bytecode -r "scripts/locks/$variant.txt" ${options[@]+"${options[@]}"} || fail "the packages could not be installed" \
        "read the message above; with no network, name a directory of wheels in PIP_FIND_LINKS; a hash mismatch is a file that is not the one that was locked"
    say "3/3 this project, editable"
    .venv/bin/uv pip install -q --no-deps --no-build-isolation -e . || fail "the project could not be installed" "read the message above"
}
