"""What Ray and HAProxy open on this machine, closed to others as far as that can be done from outside: before Ray is started.

Whoever reaches a Ray cluster and has its token may run any code in it. Ray makes the token itself, in a file that everybody on the machine
may read, and its logs and sockets in directories that everybody may write into; its HAProxy takes orders from a socket that is everybody's;
and its ports listen on all addresses.
"""

import os
import secrets
import stat
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

TOKEN = Path(".ray", "auth_token")
"""Below the home directory; where Ray looks."""
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
HAPROXY_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}
"""Ray's default is one directory for all, in /tmp. Its socket has all rights (`level admin`), and mode 666."""


def guard(environment: MutableMapping[str, str], home: Path, temporary: Path, *, is_local: bool) -> Path:
    """Sets what Ray reads when it is imported, and makes its token; what the caller has set stays. Returns a directory of this user's.

    `is_local`: nobody but this machine is to reach the application.
    """
    environment.setdefault("RAY_AUTH_MODE", "token")
    if environment["RAY_AUTH_MODE"] == "token" and not any(name in environment for name in TOKEN_VARIABLES):
        keep_token(home)
    directory = private_directory(temporary)
    for name, file in HAPROXY_FILES.items():
        environment.setdefault(name, str(directory / file))
    environment.setdefault("RAY_TMPDIR", str(directory))
    if is_local:
        # Ray then takes 127.0.0.1 for the node's address, and its servers listen there alone.
        environment.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    return directory


def keep_token(home: Path) -> None:
    """Makes the token if there is none, and sees to it that its owner alone can read it."""
    path = home / TOKEN
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def private_directory(temporary: Path) -> Path:
    """One in `temporary` that nobody else may enter: this user's, the same at each start, unless somebody else has taken its name."""
    path = temporary / f"mygo-{os.geteuid()}"
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return Path(tempfile.mkdtemp(prefix="mygo-", dir=temporary))
    return path
