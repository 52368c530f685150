"""Becomes a Milvus server: `python milvus_server.py DIRECTORY PORT`, by the interpreter of an environment that has the wheel `milvus`.

The wheel's own command would stay in between, as a process that passes no signal on. This one unpacks what the wheel brings,
writes a configuration whose ports are PORT and those after it, and then is the server: one process, one pid.
"""

import json
import os
import socket
import sys
from pathlib import Path

import milvus

PORTS = (
    "proxy",
    "proxy_internal",
    "etcd",
    "root_coord",
    "query_coord",
    "query_node",
    "index_coord",
    "index_node",
    "data_coord",
    "data_node",
)
ROLES = ("proxy", "rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")


def main(directory: Path, port: int) -> None:
    """Does not return."""
    ports = {f"{name}_port": port + offset for offset, name in enumerate(PORTS)}
    etcd_peers, metrics = port + len(PORTS), port + len(PORTS) + 1
    configure(directory, ports)
    etcd = directory / "configs" / "etcd.yaml"
    etcd.write_text(json.dumps(etcd_configuration(ports["etcd_port"], etcd_peers)))  # JSON is YAML
    os.environ.update(
        DEPLOY_MODE="STANDALONE",
        METRICS_PORT=str(metrics),
        ETCD_CONFIG_PATH=str(etcd),
        MILVUS_RUN_DIR=str(directory / "run"),
        LD_LIBRARY_PATH=os.pathsep.join(filter(None, [str(directory / "bin"), os.environ.get("LD_LIBRARY_PATH")])),
    )
    os.chdir(directory)  # the server looks for configs/ here
    os.execv(directory / "bin" / "milvus", ["milvus", "run", "standalone"])  # noqa: S606


class Config(milvus.MilvusServerConfig):
    """The wheel's own look at a port finds it taken for a minute after a server has used it."""

    def try_bind_port(self, port: int) -> socket.socket | None:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            return None


def configure(directory: Path, ports: dict[str, int]) -> None:
    config = Config(data_dir=str(directory), **ports)
    config.set("log.level", "warn")
    config.set("common.session.ttl", 10)  # seconds until a start after a crash stops waiting for its predecessor: otherwise 30
    for role in ROLES:  # otherwise they register the machine's address of the day, and do not find each other when it changes
        config.set(f"{role}.ip", "127.0.0.1")
    config.resolve()
    milvus._initialize_data_files(config.base_data_dir)


def etcd_configuration(port: int, peers: int) -> dict[str, object]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
    return {
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
