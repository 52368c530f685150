"""Load from `wrk`, which takes little of the cores that it shares with what it measures."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_LATENCY = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_TOTAL = re.compile(r"^\s+(\d+) requests in", re.MULTILINE)
_REFUSED = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_SOCKET = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")


@dataclass(frozen=True, slots=True)
class Measured:
    requests: int
    errors: int
    """Answers that are no 2xx or 3xx, and what sockets said."""
    requests_per_s: float
    p50_s: float
    p99_s: float


def available() -> bool:
    return shutil.which("wrk") is not None


def load(
    url: str, bodies: Sequence[bytes], connections: int, seconds: float, headers: Mapping[str, str] | None = None, cpus: str = ""
) -> Measured:
    """POSTs the bodies, in turn, as fast as they are answered. `cpus`: as for `taskset -c`. Raises `RuntimeError`."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "post.lua"
        script.write_text(_script(bodies, headers or {}))
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--latency",
            "--timeout",
            "30s",
            "-s",
            str(script),
            url,
        ]
        pinned = ["taskset", "-c", cpus, *command] if cpus else command
        ran = subprocess.run(pinned, capture_output=True, text=True, check=False)
    if ran.returncode or not _RATE.search(ran.stdout):
        raise RuntimeError(f"wrk failed: {ran.stderr or ran.stdout}")
    return _read(ran.stdout)


def _script(bodies: Sequence[bytes], headers: Mapping[str, str]) -> str:
    """Requests are made once, not for each time they are sent."""
    fields = "\n".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in {"content-type": "application/json", **headers}.items()
    )
    quoted = ",\n".join(_quoted(body) for body in bodies)
    return f"""wrk.method = "POST"
{fields}
local bodies = {{{quoted}}}
local made, turn = {{}}, 0
function init(args)
  for number, body in ipairs(bodies) do made[number] = wrk.format(nil, nil, nil, body) end
end
function request()
  turn = turn % #made + 1
  return made[turn]
end
"""


def _quoted(body: bytes) -> str:
    return '"' + "".join(chr(byte) if 32 <= byte < 127 and byte not in (34, 92) else f"\\{byte:03d}" for byte in body) + '"'


def _read(output: str) -> Measured:
    rate, total = _RATE.search(output), _TOTAL.search(output)
    latencies = {percent: float(value) * _UNITS_S[unit] for percent, value, unit in _LATENCY.findall(output)}
    sockets, refused = _SOCKET.search(output), _REFUSED.search(output)
    errors = (int(refused.group(1)) if refused else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
    return Measured(
        int(total.group(1)) if total else 0,
        errors,
        float(rate.group(1)) if rate else 0.0,
        latencies.get("50", 0.0),
        latencies.get("99", 0.0),
    )
