"""Whether the locked packages have known vulnerabilities, by pip-audit: `python scripts/audit.py [LOCK ...]`.

Exit code 1: one has, and `scripts/locks/audit-ignore.txt` does not say why it may stay. Where no service can be asked, that is said, and it
is no failure: whoever has no network must be able to check the rest. Services that answer but know nothing, as mirrors do, are found out
by a package that is known to be vulnerable. `MYGO_AUDIT=off` asks nobody; `MYGO_OSV_URL` names a server with OSV's API to ask alone.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOCKS = (ROOT / "scripts/locks/cpu.txt", ROOT / "scripts/locks/gpu.txt")
IGNORED = ROOT / "scripts/locks/audit-ignore.txt"
CANARY = "jinja2==2.4.1"
"""Vulnerable since 2014 (CVE-2014-0012): a service that does not say so says nothing of others either."""
TIMEOUT_S = 600
REQUEST_TIMEOUT_S = 15


class AuditError(Exception):
    """The audit could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    package: str
    version: str
    names: tuple[str, ...]
    """The vulnerability's own first, then those that other lists have for it."""
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        fixed = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no version has it fixed"
        return f"{self.package} {self.version}: {', '.join(self.names)}; {fixed}"


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why a vulnerability may stay, and until when."""

    name: str
    until: date
    reason: str


def main(locks: Sequence[Path], today: date, environment: Mapping[str, str]) -> int:
    if environment.get("MYGO_AUDIT") == "off":
        return _not_audited("MYGO_AUDIT is off")
    try:
        excuses = read_excuses(IGNORED.read_text())
        service = _service(environment.get("MYGO_OSV_URL"))
        packages = _packages(locks)
        findings, unknown = _asked(packages, service)
    except AuditError as error:
        return _not_audited(str(error))
    except ValueError as error:
        _say(f"error: {error}")
        return 2
    if len(unknown) == len(packages):
        return _not_audited("the service knows none of the packages")
    if unknown:
        _say(f"not audited, because the service does not know them: {', '.join(unknown)}")
    bad, excused = sorted_out(findings, excuses, today)
    for line in excused:
        _say(line)
    for finding in bad:
        _say(f"vulnerable: {finding}")
    _say(f"{len(packages) - len(unknown)} packages audited, {len(bad)} known vulnerabilities")
    return 1 if bad else 0


def read_excuses(text: str) -> list[Excuse]:
    """One a line: NAME YYYY-MM-DD REASON; `#` begins a comment. Raises `ValueError` for a line that is none."""
    excuses = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, until, reason = (*line.split(maxsplit=2), "", "")[:3]
        try:
            excuses.append(Excuse(name, date.fromisoformat(until), reason))
        except ValueError:
            raise ValueError(f"audit-ignore.txt, line {number}: expected NAME YYYY-MM-DD REASON") from None
        if not reason:
            raise ValueError(f"audit-ignore.txt, line {number}: {name} has no reason")
    return excuses


def sorted_out(findings: Iterable[Finding], excuses: Sequence[Excuse], today: date) -> tuple[list[Finding], list[str]]:
    """What must be mended, and a line for each that need not be yet, or whose excuse has run out."""
    bad, lines = [], []
    for finding in findings:
        excuse = next((each for each in excuses if each.name in finding.names), None)
        if excuse is None or excuse.until < today:
            bad.append(finding)
        if excuse is not None:
            state = "no longer excused" if excuse.until < today else "excused"
            lines.append(f"{state} until {excuse.until}: {finding}: {excuse.reason}")
    return bad, lines


def _packages(locks: Sequence[Path]) -> list[str]:
    """`NAME==VERSION` of all of them, each once; builds for a platform (`+cpu`) have the vulnerabilities of their version."""
    lines = [re.split(r"[;\\]", line)[0].strip() for lock in locks for line in lock.read_text().splitlines()]
    return sorted({line.partition("+")[0] for line in lines if "==" in line and not line.startswith("#")})


def _service(osv_url: str | None) -> list[str]:
    """What makes pip-audit ask a service that answers. Raises `AuditError`."""
    services = [["-s", "osv", "--osv-url", osv_url]] if osv_url else [["-s", "pypi"], ["-s", "osv"]]
    for service in services:
        try:
            findings, _ = _asked([CANARY], service)
        except AuditError:
            continue
        if findings:
            return service
    raise AuditError("service unreachable: none knows that an old package is vulnerable (PyPI's JSON API and OSV were asked)")


def _asked(packages: Sequence[str], service: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """What is known of them, and those of which nothing is. Raises `AuditError`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(packages))
        requirements.flush()
        options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", str(REQUEST_TIMEOUT_S)]
        command = [sys.executable, "-m", "pip_audit", "-r", requirements.name, *options, *service]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise AuditError(f"service unreachable: it took longer than {TIMEOUT_S} s") from None
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError):
        last = (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        raise AuditError(f"service unreachable: {last[:300]}") from None
    findings = [
        Finding(each["name"], each["version"], (vuln["id"], *vuln.get("aliases", ())), tuple(vuln["fix_versions"]))
        for each in dependencies
        for vuln in each.get("vulns", ())
    ]
    return findings, [each["name"] for each in dependencies if "skip_reason" in each]


def _not_audited(reason: str) -> int:
    _say(f"not audited: {reason}")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"[mygo] {text}\n")


if __name__ == "__main__":
    sys.exit(main([Path(each) for each in sys.argv[1:]] or LOCKS, date.today(), os.environ))
