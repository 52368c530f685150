"""gRPC as `mygo serve` gives it: through HAProxy and Ray's servers, on the simulated engine."""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import psutil
import pytest
import yaml
from google.protobuf.struct_pb2 import Struct

from serve_app.config import is_loopback
from serve_app.doctor import GRPC_SERVICER
from serve_app.grpc import llm_service_pb2 as pb
from serve_app.grpc.llm_service_pb2_grpc import LLMServiceStub
from tests.e2e.system import ROOT, System, free_port, poll, report

AT_ONCE = 120
"""More than HAProxy lets a client have on one connection unless it is told otherwise, and as many as two engines take (64 each)."""
ABORT_S = 2.0
STOP_S = 60


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("grpc")
    content = yaml.safe_load((ROOT / "config.sim.yaml").read_text())
    content["grpc_options"] = {"port": port, "grpc_servicer_functions": [GRPC_SERVICER]}
    (directory / "with_grpc.yaml").write_text(yaml.safe_dump(content))
    report("starting scripts/serve with config.sim.yaml and gRPC")
    system = System(directory / "with_grpc.yaml", directory)
    try:
        system.wait_ready()
        yield system
    finally:
        system.stop()


@pytest.fixture
def stub(system: System, port: int) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield LLMServiceStub(channel)


def long(content: str = "Tell me everything.") -> pb.ChatRequest:
    """An answer that takes a minute."""
    extra = Struct()
    extra["ignore_eos"] = True
    message = pb.Message(role="user", content=content)
    return pb.ChatRequest(model="mygo-sim", messages=[message], max_tokens=4000, cache=pb.CacheOptions(mode="off"), extra=extra)


def test_both_protocols_have_one_cache(stub: Any, http: httpx.Client, chat: dict[str, Any], tenant: dict[str, str]) -> None:
    text = http.post("/v1/chat/completions", json=chat).raise_for_status().json()["choices"][0]["message"]["content"]
    messages = [pb.Message(**message) for message in chat["messages"]]
    request = pb.ChatRequest(model="mygo-sim", messages=messages, max_tokens=chat["max_tokens"], temperature=chat["temperature"])
    response = stub.Chat(request, metadata=list(tenant.items()))
    assert (response.meta.cache, response.choices[0].message.content) == ("exact", text)
    chunks = list(stub.ChatStream(request, metadata=list(tenant.items())))
    assert "".join(choice.delta.content for chunk in chunks for choice in chunk.choices) == text
    assert chunks[-1].usage.completion_tokens == chat["max_tokens"]
    assert stub.Chat(request, metadata=[("x-mygo-tenant", "another")]).meta.cache == "miss"


def test_embeddings_and_models(stub: Any) -> None:
    models = [model.id for model in stub.ListModels(pb.ListModelsRequest()).data]
    assert models[0] == "mygo-sim"
    response = stub.Embed(pb.EmbedRequest(model=models[-1], input=["a", "b"]))
    assert [len(each.values) for each in response.data] == [384, 384]


def test_an_error_comes_with_its_metadata(stub: Any) -> None:
    for call in (stub.Complete, lambda *args, **options: list(stub.CompleteStream(*args, **options))):
        with pytest.raises(grpc.RpcError) as caught:
            call(pb.CompleteRequest(model="other", prompt="A"), metadata=[("x-request-id", "order-66")])
        error: Any = caught.value
        assert (error.code(), "Could not find" in error.details()) == (grpc.StatusCode.NOT_FOUND, True)
        said = dict(error.trailing_metadata())
        assert (said["x-mygo-error-code"], said["x-request-id"]) == ("model_not_found", "order-66")


def test_a_message_that_is_too_long_is_refused_before_it_is_read(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Complete(pb.CompleteRequest(model="mygo-sim", prompt="x" * (65 * 1024 * 1024)))
    error: Any = caught.value
    assert (error.code(), "larger than max" in error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


@pytest.mark.parametrize("leaves", ["cancels", "has a deadline"])
@pytest.mark.parametrize("method", ["Chat", "ChatStream"])
def test_engines_stop_working_for_a_client_that(leaves: str, method: str, stub: Any, system: System) -> None:
    timeout = None if leaves == "cancels" else 1.5
    call = stub.ChatStream(long(), timeout=timeout) if method == "ChatStream" else stub.Chat.future(long(), timeout=timeout)
    poll("the request in the engine", 10, lambda: system.ongoing() == 1)
    if leaves == "cancels":
        call.cancel()
    else:
        poll("the deadline", 10, lambda: call.code() is grpc.StatusCode.DEADLINE_EXCEEDED if method == "ChatStream" else call.done())
    left = time.monotonic()
    poll("no running requests", ABORT_S, lambda: system.ongoing() == 0)
    assert time.monotonic() - left < ABORT_S
    assert call.code() is (grpc.StatusCode.CANCELLED if leaves == "cancels" else grpc.StatusCode.DEADLINE_EXCEEDED)


def test_rays_own_ports_answer_this_machine_only(system: System) -> None:
    outside = node_address()
    for name in ("Ingress", "ProxyActor"):
        [process] = system.processes(name)
        listening = {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
        inside_codes = {asked(f"127.0.0.1:{port}") for port in listening}
        outside_codes = {asked(f"{outside}:{port}") for port in listening}
        assert grpc.StatusCode.OK in inside_codes, name
        assert grpc.StatusCode.PERMISSION_DENIED in outside_codes, name
        assert grpc.StatusCode.OK not in outside_codes, name


def node_address() -> str:
    """This machine's, as others reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with contextlib.suppress(OSError):
            sock.connect(("192.0.2.1", 9))  # sends nothing
        address: str = sock.getsockname()[0]
    if address == "0.0.0.0" or is_loopback(address):  # noqa: S104
        pytest.skip("this machine has no network")
    return address


def asked(target: str) -> grpc.StatusCode:
    with grpc.insecure_channel(target) as channel:
        try:
            LLMServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=5, metadata=[("application", "mygo")])
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def test_many_calls_on_one_connection(stub: Any, system: System) -> None:
    calls = [stub.ChatStream(long(f"Tell me {number}.")) for number in range(AT_ONCE)]
    poll("all of them in the engines", 30, lambda: system.ongoing() == AT_ONCE)
    for call in calls:
        call.cancel()
    poll("no running requests", 10, lambda: system.ongoing() == 0)


def test_a_stop_lets_a_stream_finish(stub: Any, system: System) -> None:
    request = long()
    request.max_tokens = 200
    call = stub.ChatStream(request)
    next(call)
    system.send_signal(signal.SIGTERM)
    rest = list(call)
    assert rest[-1].usage.completion_tokens == 200
    assert system.wait(STOP_S) == 0
