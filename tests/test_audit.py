"""`scripts/audit.py`: what fails, what is excused, and what is said where nobody can be asked. pip-audit is the real one, OSV a fake."""

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from scripts import audit
from scripts.audit import Excuse, Finding, main, read_excuses, sorted_out

TODAY = date(2026, 11, 28)


def vulnerability(package: str) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "9.9"}]
    affected = [{"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
    return {"id": f"PYSEC-1-{package}", "aliases": [f"CVE-1-{package}"], "summary": "x", "affected": affected, "modified": "2026-01-01"}


class Osv(BaseHTTPRequestHandler):
    """Says which packages are vulnerable."""

    vulnerable: ClassVar[set[str]] = set()
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:  # the base class's name
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = query["package"]["name"]
        self.asked.append(f"{name}=={query['version']}")
        body = json.dumps({"vulns": [vulnerability(name)]} if name in self.vulnerable else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that names it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Osv, "vulnerable", {"jinja2"})
    monkeypatch.setattr(Osv, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"MYGO_OSV_URL": f"http://127.0.0.1:{server.server_port}/v1/query"}
    server.shutdown()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text(
        "good==1.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\nbad==2.0+cpu\nonly-there==3.0 ; python_version < '3.12'\n"
    )
    return path


@pytest.fixture
def excused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def write(text: str) -> None:
        path = tmp_path / "ignore.txt"
        path.write_text(text)
        monkeypatch.setattr(audit, "IGNORED", path)

    return write


def test_what_is_not_vulnerable_passes(osv: dict[str, str], lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([lock], TODAY, osv) == 0
    assert "3 packages audited, 0 known vulnerabilities" in capsys.readouterr().err
    assert sorted(Osv.asked) == ["bad==2.0", "good==1.0", "jinja2==2.4.1", "only-there==3.0"]


def test_what_is_vulnerable_fails_unless_it_is_excused(
    osv: dict[str, str], lock: Path, excused: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Osv.vulnerable.add("bad")
    excused("# none\n")
    assert main([lock], TODAY, osv) == 1
    assert "vulnerable: bad 2.0: PYSEC-1-bad, CVE-1-bad; fixed in 9.9" in capsys.readouterr().err
    excused("CVE-1-bad 2026-12-31 is never called with a stranger's file\n")
    assert main([lock], TODAY, osv) == 0
    assert "excused until 2026-12-31" in capsys.readouterr().err
    assert main([lock], date(2027, 1, 1), osv) == 1
    assert "no longer excused until 2026-12-31" in capsys.readouterr().err


def test_a_service_that_knows_nothing_is_not_believed(osv: dict[str, str], lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Osv.vulnerable.clear()
    assert main([lock], TODAY, osv) == 0
    assert "not audited: service unreachable" in capsys.readouterr().err
    assert Osv.asked == ["jinja2==2.4.1"]


def test_a_service_that_is_not_there(lock: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert main([lock], TODAY, {"MYGO_OSV_URL": "http://127.0.0.1:1/v1/query"}) == 0
    assert "not audited: service unreachable" in capsys.readouterr().err


def test_nobody_is_asked_where_that_is_turned_off(osv: dict[str, str], lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([lock], TODAY, {**osv, "MYGO_AUDIT": "off"}) == 0
    assert "not audited: MYGO_AUDIT is off" in capsys.readouterr().err
    assert Osv.asked == []


def test_the_shipped_excuses_can_be_read() -> None:
    for excuse in read_excuses(audit.IGNORED.read_text()):
        assert len(excuse.reason) > 20


@pytest.mark.parametrize("line", ["CVE-1", "CVE-1 soon because", "CVE-1 2026-01-01", "CVE-1 2026-13-01 because"])
def test_an_excuse_without_day_or_reason_is_refused(line: str, osv: dict[str, str], lock: Path, excused: Any) -> None:
    with pytest.raises(ValueError, match="line 2"):
        read_excuses(f"# x\n{line}\n")
    excused(line)
    assert main([lock], TODAY, osv) == 2


def test_an_excuse_is_for_any_name_of_a_vulnerability() -> None:
    finding = Finding("a", "1", ("PYSEC-1", "CVE-1"), ())
    for name, count in (("PYSEC-1", 0), ("CVE-1", 0), ("CVE-2", 1)):
        bad, _ = sorted_out([finding], [Excuse(name, TODAY, "x")], TODAY)
        assert len(bad) == count


def test_all_locked_packages_are_asked_for() -> None:
    packages = audit._packages(audit.LOCKS)
    assert {line.partition("==")[0] for line in packages} >= {"torch", "vllm", "ray", "starlette"}
    assert not [line for line in packages if "+" in line or ";" in line]
