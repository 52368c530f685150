"""What the application opens on its machine beside its own port, and to whom."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from serve_app.config import is_loopback
from serve_app.ray_guard import TOKEN
from tests.e2e.system import ROOT, System, poll, report, title

SECRET = "canary-of-a-secret-7f3a9"
LIST_NODES = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
CALL_REPLICA = "/ray.serve.ASGIService/HandleRequest"
"""It unpickles what it is sent."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    report("starting scripts/serve with config.sim.yaml and a secret in it")
    system = System(ROOT / "config.sim.yaml", tmp_path_factory.mktemp("exposure"), {"secret": SECRET})
    try:
        system.wait_ready()
        yield system
    finally:
        system.stop()


def listening(process: psutil.Process) -> list[Any]:
    """Addresses."""
    return [each.laddr for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]


def refused(port: int, method: str, token: str | None = None) -> bool:
    """Whether a call with no arguments is, for who calls."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(method)(b"", metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            refusal: Any = error
            return bool(refusal.code() is grpc.StatusCode.UNAUTHENTICATED)
    return False


def test_what_listens_on_other_addresses(system: System) -> None:
    """Of an application for this machine: two ports of HAProxy's with figures, and one of each Serve replica that needs Ray's token."""

    def open_to_others() -> list[tuple[str, int]]:
        return [
            (title(process), address.port)
            for process in system.descendants()
            for address in listening(process)
            if not is_loopback(address.ip.removeprefix("::ffff:"))
        ]

    # At the start HAProxies replace one another.
    others: list[tuple[str, int]] = poll(
        "one HAProxy", 20, lambda: sum("haproxy" in name for name, _ in open_to_others()) == 2 and open_to_others()
    )
    replicas = [(name, port) for name, port in others if "haproxy" not in name]
    assert [name for name, _ in replicas if "ServeReplica" not in name] == []
    token = (Path.home() / TOKEN).read_text()
    for name, port in replicas:
        answers = [refused(port, CALL_REPLICA), refused(port, CALL_REPLICA, "0" * 64), refused(port, CALL_REPLICA, token)]
        assert answers == [True, True, False], name


def test_nobody_joins_the_cluster_without_its_token(system: System) -> None:
    [gcs] = system.processes("gcs_server")
    [address] = listening(gcs)
    token = (Path.home() / TOKEN).read_text()
    assert [refused(address.port, LIST_NODES, each) for each in (None, "0" * 64, token)] == [True, True, False]


def test_secrets_are_in_no_log(system: System) -> None:
    logs = [path for path in (system.session() / "logs").rglob("*") if path.is_file()]
    assert len(logs) > 10
    assert [path for path in (*logs, system.log) if SECRET.encode() in path.read_bytes()] == []


def test_other_users_of_the_machine_read_and_order_nothing(system: System) -> None:
    private = {system.session().parent.parent, Path.home() / TOKEN, Path(system.args["data_dir"])}
    [haproxy, *_] = system.processes("haproxy -")
    config = Path(haproxy.cmdline()[haproxy.cmdline().index("-f") + 1])
    orders = re.search(r"stats socket (\S+)", config.read_text())
    assert orders
    private.add(Path(orders[1]).parent.parent)
    assert {path: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in private} == dict.fromkeys(private, 0)
