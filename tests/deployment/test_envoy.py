"""Envoy takes the configuration, and does with it what its comments say."""

import shutil

import grpc
import pytest

from tests.deployment.folder import SERVING, documents, run
from tests.deployment.replicas import Envoy, ask, replica, wait_until

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
MEGABYTE = 1 << 20


@pytest.fixture
def replicas():
    with replica("a") as a, replica("b") as b:
        yield a, b


@pytest.fixture
def envoy(replicas, tmp_path, request):
    if shutil.which("envoy") is None:
        pytest.skip("envoy is not installed")
    ports = [(port, rest.server_port) for _, port, rest in replicas]
    envoy = Envoy(tmp_path, ports, hurry=getattr(request, "param", False))
    yield envoy
    envoy.stop()


@pytest.fixture
def channel(envoy):
    with grpc.insecure_channel(envoy.address, [("grpc.max_send_message_length", -1)]) as channel:
        yield channel


def failure(channel, *request, **options):
    """How one request fails; None where it does not."""
    try:
        ask(channel, *request, **options)
    except grpc.RpcError as error:
        return error.code()
    return None


def test_configuration_is_valid_and_not_deprecated():
    printed = run(["envoy", "--mode", "validate", "-c", SERVING / "envoy" / "envoy.yaml"])
    assert "OK" in printed
    assert "eprecated" not in printed


def test_one_channel_reaches_every_replica(envoy, channel):
    envoy.wait_healthy(2)
    assert {ask(channel) for _ in range(40)} == {"a", "b"}


def test_only_replicas_with_an_available_model_are_asked(replicas, envoy, channel):
    (_, _, rest), _ = replicas
    envoy.wait_healthy(2)
    rest.state = "LOADING"
    wait_until(lambda: {ask(channel) for _ in range(40)} == {"b"})
    rest.state = "AVAILABLE"
    wait_until(lambda: {ask(channel) for _ in range(40)} == {"a", "b"})


def test_no_replica_is_asked_when_none_is_available(replicas, envoy, channel):
    for _, _, rest in replicas:
        rest.state = "END"
    wait_until(lambda: failure(channel) is grpc.StatusCode.UNAVAILABLE)
    asked = sum(handler.asked for handler, _, _ in replicas)
    assert failure(channel) is grpc.StatusCode.UNAVAILABLE
    assert sum(handler.asked for handler, _, _ in replicas) == asked


def test_unavailable_is_asked_again_elsewhere(replicas, envoy, channel):
    (a, _, _), _ = replicas
    envoy.wait_healthy(2)
    a.code = grpc.StatusCode.UNAVAILABLE
    assert {ask(channel) for _ in range(20)} == {"b"}
    assert a.asked >= 1


@pytest.mark.parametrize("envoy", [True], indirect=True, ids=["hurry"])
def test_connections_end_and_no_request_fails(envoy, channel):
    """So that a pod that ends is left: the client goes elsewhere, and notices nothing."""
    envoy.wait_healthy(2)
    wait_until(lambda: ask(channel) and envoy.count("http.grpc.downstream_cx_destroy") >= 3)
    assert envoy.count("http.grpc.downstream_cx_max_duration_reached") >= 3


@pytest.mark.parametrize("code", ["INTERNAL", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_other_failures_are_not_asked_again(code, replicas, envoy, channel):
    envoy.wait_healthy(2)
    for handler, _, _ in replicas:
        handler.code = grpc.StatusCode[code]
    assert [failure(channel).name for _ in range(6)] == [code] * 6
    assert sum(handler.asked for handler, _, _ in replicas) == 6


def test_deadline_reaches_the_replica(replicas, envoy, channel):
    envoy.wait_healthy(2)
    ask(channel, timeout=20)
    assert any(handler.remaining is not None and handler.remaining <= 20 for handler, _, _ in replicas)


def test_reload_does_not_pass(replicas, envoy, channel):
    envoy.wait_healthy(2)
    assert failure(channel, method=RELOAD) is grpc.StatusCode.PERMISSION_DENIED
    assert [handler.asked for handler, _, _ in replicas] == [0, 0]


def test_messages_up_to_the_limit_pass(replicas, envoy, channel):
    envoy.wait_healthy(2)
    assert ask(channel, bytes(31 * MEGABYTE)) in ("a", "b")
    assert failure(channel, bytes(33 * MEGABYTE)) not in (None, grpc.StatusCode.UNAVAILABLE), "clients would try again"
    assert sum(handler.asked for handler, _, _ in replicas) == 1


def test_the_open_port_shows_nothing_that_changes_the_proxy():
    (config,) = documents("envoy/envoy.yaml")
    assert config["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    stats = next(listener for listener in config["static_resources"]["listeners"] if listener["name"] == "stats")
    manager = stats["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert [route["match"] for route in routes] == [{"path": "/ready"}, {"path": "/stats/prometheus"}]
