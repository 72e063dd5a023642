"""Replicas for Envoy to balance: gRPC servers without a model, each with a REST port that tells its state."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from concurrent import futures
from pathlib import Path

import grpc

from tests.deployment.folder import documents
from tests.deployment.status_server import status_server

PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Replica(grpc.GenericRpcHandler):
    """Answers every method with its name, or fails with ``code``; counts what it is asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.code: grpc.StatusCode | None = None
        self.asked = 0
        self.remaining: float | None = None  # the last request's deadline, in seconds

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked += 1
        self.remaining = context.time_remaining()
        if self.code is not None:
            context.abort(self.code, self.name)
        return self.name.encode()


@contextlib.contextmanager
def replica(name: str, state: str = "AVAILABLE"):
    """Runs one; yields it, its gRPC port and its REST server."""
    handler = Replica(name)
    server = grpc.server(futures.ThreadPoolExecutor(4), [handler], options=[("grpc.max_receive_message_length", -1)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with status_server(state) as rest:
        yield handler, port, rest
    server.stop(None).wait()


class Envoy:
    """A running Envoy in front of replicas, with the deployment's configuration but for addresses and intervals.

    Args:
        folder: for its files.
        endpoints: gRPC and REST port of each replica.
        hurry: whether connections live a fifth of a second.
    """

    def __init__(self, folder: Path, endpoints: list[tuple[int, int]], hurry: bool = False) -> None:
        config = folder / "envoy.json"
        config.write_text(json.dumps(_configuration(endpoints, hurry)))
        admin = folder / "admin"
        options = ["--concurrency", "1", "--use-dynamic-base-id", "--admin-address-path", admin, "--log-level", "error"]
        self._process = subprocess.Popen(["envoy", "-c", config, *options], stderr=(folder / "log").open("w"))
        wait_until(lambda: admin.exists() and admin.read_text())
        self._admin = admin.read_text()
        wait_until(lambda: self._get("/ready") == "LIVE\n")
        listeners = json.loads(self._get("/listeners?format=json"))["listener_statuses"]
        (port,) = [
            item["local_address"]["socket_address"]["port_value"] for item in listeners if item["name"] == "grpc"
        ]
        self.address = f"127.0.0.1:{port}"

    def wait_healthy(self, count: int) -> None:
        """Until so many replicas count as healthy."""
        wait_until(lambda: self.count("cluster.ranker.membership_healthy") == count)

    def count(self, name: str) -> int:
        """One of its statistics; -1 as long as there is none."""
        found = self._get(f"/stats?filter=^{name}$").split()
        return int(found[1]) if found else -1

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://{self._admin}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return ""


def _configuration(endpoints: list[tuple[int, int]], hurry: bool) -> dict:
    (config,) = documents("envoy/envoy.yaml")
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    for listener in config["static_resources"]["listeners"]:
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        if hurry and listener["name"] == "grpc":
            assert "max_connection_duration" in manager["common_http_protocol_options"]
            assert "drain_timeout" in manager
            manager["common_http_protocol_options"]["max_connection_duration"] = manager["drain_timeout"] = "0.2s"
    ranker = next(cluster for cluster in config["static_resources"]["clusters"] if cluster["name"] == "ranker")
    ranker["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {
            "endpoint": {
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "health_check_config": {"port_value": rest},
            }
        }
        for port, rest in endpoints
    ]
    ranker["health_checks"][0].update(interval="0.1s", no_traffic_interval="0.1s")
    return config


def wait_until(condition) -> None:
    """Asks again and again until it holds; fails after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about within a minute"
        time.sleep(0.02)


def ask(channel: grpc.Channel, request: bytes = b"", method: str = PREDICT, timeout: float = 30) -> str:
    """Sends one request; returns the name of the replica that answered. Raises grpc.RpcError."""
    return channel.unary_unary(method)(request, timeout=timeout).decode()
