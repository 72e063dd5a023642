"""What a server refuses, how deadlines bound it, what health says, and how it shuts down."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.serving.test_versions import until
from tfmmrank.export import RequestError
from tfmmrank.serving import Client, serve
from tfmmrank.serving.server.core import ServerCore
from tfmmrank.serving.server.limits import Gate, Limits
from tfmmrank.serving.server.manager import ModelManager
from tfmmrank.serving.server.model_config import ModelConfig
from tfmmrank.serving.server.rest_handler import RestHandler
from tfmmrank.serving.server.result_cache import CachedRuns, MemoryCache
from tfmmrank.stack import tf

pytestmark = pytest.mark.embedded_only
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@contextlib.contextmanager
def asking(address):
    with grpc.insecure_channel(address) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict


def ask(signature="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "small", signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.array(value, np.float32)))
    return request


WAIT, GO = ask("wait", x=[1.0]), ask("go", x=[1.0])


def refusal(call, request, timeout=60):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=timeout)
    return caught.value.code().name, caught.value.details()


def health(address):
    with grpc.insecure_channel(address) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60).status


def test_candidates_beyond_the_limit_are_refused(small_model):
    with serve(small_model, port=0, limits=Limits(candidates=6)) as server, asking(server.address) as predict:
        assert predict(ask(x=np.ones((2, 3))), timeout=60).outputs["total"].float_val == [6.0, 6.0]
        assert refusal(predict, ask(x=np.ones((1, 7)))) == (
            "INVALID_ARGUMENT", 'input "x" has 7 candidates; this server\'s limit is 6 a request',
        )  # fmt: skip
        request = ask(x=np.ones((2, 3)))
        request.inputs["x"].tensor_shape.dim[1].size = 1 << 40  # told before a value of it is read
        assert "limit is 6" in refusal(predict, request)[1]
        for shape in ((7,), (0, 7), (7, 0), (1, 7, 0)):  # a graph works along an axis even where another is 0
            assert "has 7 candidates" in refusal(predict, ask(x=np.ones(shape)))[1]
        assert predict(ask(x=np.ones((0, 6))), timeout=60).outputs["total"].float_val == []


def test_messages_beyond_the_limit_are_refused(small_model):
    with serve(small_model, port=0, limits=Limits(message_bytes=2000)) as server, asking(server.address) as predict:
        assert predict(ask(x=np.ones((1, 100))), timeout=60).outputs["total"].float_val == [200.0]
        code, message = refusal(predict, ask(x=np.ones((1, 1000))))
        assert (code, "larger than max" in message) == ("RESOURCE_EXHAUSTED", True)


def test_a_limit_of_nothing_is_told():
    with pytest.raises(ValueError, match="limit candidates is 0; expected at least 1"):
        Limits(candidates=0)


def test_requests_beyond_the_limit_are_refused_at_once(small_model):
    """One worker, two requests: the second waits for the worker and counts all the same; the third is refused."""
    limits = Limits(concurrent_requests=2)
    with serve(small_model, port=0, workers=1, limits=limits) as server, asking(server.address) as predict:
        running = predict.future(WAIT, timeout=60)
        until(lambda: server.core.gate.inside == 1)
        waiting = predict.future(GO, timeout=60)
        until(lambda: refusal(predict, GO, timeout=1)[0] == "RESOURCE_EXHAUSTED")
        assert not running.done()
        assert not waiting.done()
        server.core.predict(GO)
        assert running.result().outputs["y"].float_val == [1.0]
        assert waiting.result().outputs["y"].float_val == [1.0]
        assert predict(ask(x=[[1.0]]), timeout=60)


def test_refusals_are_counted_and_probes_are_answered_all_the_same(small_model):
    metrics, limits = Told(), Limits(concurrent_requests=1)
    with (
        serve(small_model, port=0, workers=1, limits=limits, metrics=metrics) as server,
        asking(server.address) as predict,
    ):
        running = predict.future(WAIT, timeout=60)
        until(lambda: server.core.gate.inside == 1)
        assert refusal(predict, GO) == ("RESOURCE_EXHAUSTED", "the server answers 1 requests at once already")
        assert metrics.requests == [("Predict", "GRPC", "small", "RESOURCE_EXHAUSTED")]
        assert health(server.address) == SERVING
        with Client(server.address, "small", timeout=60) as client:
            assert client.status() == {1: "AVAILABLE"}
        with server.core.manager.acquire(WAIT.model_spec) as version:
            version.servable.run("go", {"x": np.ones(1, np.float32)})
        assert running.result().outputs["y"].float_val == [1.0]


def test_the_gate_counts_refuses_and_closes():
    gate = Gate(limit=2)
    with gate.enter(), gate.enter():
        assert gate.inside == 2
        with pytest.raises(RequestError, match="answers 2 requests at once already") as caught, gate.enter():
            pass
        assert caught.value.code == "RESOURCE_EXHAUSTED"
        gate.close()
        assert not gate.wait_empty(0.01)
    assert gate.wait_empty(0.01)
    with pytest.raises(RequestError, match="the server is shutting down") as caught, gate.enter():
        pass
    assert caught.value.code == "UNAVAILABLE"


def test_a_deadline_ends_the_run(small_model):
    with serve(small_model, port=0) as server, asking(server.address) as predict:
        assert refusal(predict, WAIT, timeout=0.3)[0] == "DEADLINE_EXCEEDED"
        until(lambda: not server.core.gate.inside)  # the run itself has ended, not the client alone
        with pytest.raises(RequestError) as caught:
            server.core.predict(GO, timeout=0.0)
        assert caught.value.code == "DEADLINE_EXCEEDED"
        with pytest.raises(RequestError) as caught:  # what had expired was not run: there is no go to wait for
            server.core.predict(WAIT, timeout=0.1)
        assert caught.value.code == "DEADLINE_EXCEEDED"


def test_a_fault_of_ours_is_told_without_our_insides(small_model, caplog):
    with serve(small_model, port=0) as server, asking(server.address) as predict:
        with server.core.manager.acquire(ask().model_spec) as version:
            version.servable.run = lambda *_: {}[r"C:\secret"]
        code, message = refusal(predict, ask(x=[[1.0]]))
        assert (code, message) == ("INTERNAL", "Predict failed inside the server; its log says why")
        assert "secret" in caplog.text


def test_what_a_cache_answers_is_no_run(small_model):
    metrics = Told()
    cached = CachedRuns(MemoryCache(1 << 20))
    manager = ModelManager(poll_seconds=0)
    manager.start({"small": ModelConfig("small", small_model)})
    core = ServerCore(manager, metrics=metrics, cached=cached)
    answers = [core.predict(ask(x=[[1.0]])) for _ in range(3)]
    manager.close()
    assert answers[1:] == answers[:1] * 2
    assert metrics.runs == [("Predict", "small")]


class Told:
    """A ``ServingMetrics`` that remembers."""

    def __init__(self):
        self.requests, self.runs, self.states, self.loads = [], [], [], []

    def observe_request(self, api, entrypoint, model, status, seconds):
        assert 0 < seconds < 600
        self.requests.append((api, entrypoint, model, status))

    def observe_runtime(self, api, model, seconds):
        self.runs.append((api, model))

    def model_state(self, model, version, state):
        self.states.append((model, version, state))

    def observe_load(self, directory, well):
        self.loads.append((directory.name, well))


def test_metrics_are_told_of_requests_and_models(small_model):
    metrics = Told()
    with serve(small_model, port=0, metrics=metrics) as server, asking(server.address) as predict:
        predict(ask(x=[[1.0]]), timeout=60)
        refusal(predict, ask("score", x=[[1.0]]))
        request = ask(x=[[1.0]])
        request.model_spec.name = "made up"
        refusal(predict, request)
        with Client(server.address, "small", timeout=60) as client:
            client.status()  # a probe is no request
    assert metrics.runs == [("Predict", "small")]
    assert metrics.requests == [
        ("Predict", "GRPC", "small", "OK"), ("Predict", "GRPC", "small", "FAILED_PRECONDITION"),
        ("Predict", "GRPC", "", "NOT_FOUND"),  # a name of the client's own becomes no series of metrics
    ]  # fmt: skip
    assert metrics.loads == [("1", True)]
    assert metrics.states == [("small", 1, s) for s in ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")]


def test_a_stopping_server_finishes_what_runs_and_refuses_what_comes(small_model):
    with serve(small_model, port=0) as server, asking(server.address) as predict:
        assert health(server.address) == SERVING
        running = predict.future(WAIT, timeout=60)
        until(lambda: server.core.gate.inside == 1)
        stopping = threading.Thread(target=server.stop, args=(60,))
        stopping.start()
        until(lambda: health(server.address) == NOT_SERVING)
        assert refusal(predict, GO) == ("UNAVAILABLE", "the server is shutting down")
        with Client(server.address, "small", timeout=60) as client:
            assert client.status() == {1: "UNLOADING"}  # probes look for AVAILABLE
        assert b'"AVAILABLE"' not in RestHandler(server.core).answer("GET", "/v1/models/small").body
        assert not running.done()
        with server.core.manager.acquire(WAIT.model_spec) as version:
            version.servable.run("go", {"x": np.ones(1, np.float32)})
        assert running.result().outputs["y"].float_val == [1.0]
        stopping.join(60)
        assert server.wait(0)
        assert server.core.manager.states("small")[0].state == "END"


def test_what_runs_beyond_the_grace_is_broken_off(small_model):
    with serve(small_model, port=0) as server, asking(server.address) as predict:
        running = predict.future(WAIT, timeout=60)
        until(lambda: server.core.gate.inside == 1)
        server.stop(0.1)
        assert running.exception().code().name in ("CANCELLED", "UNAVAILABLE")
        until(lambda: not server.core.gate.inside)  # or the process could not end


def test_health_can_be_left_out(small_model):
    with serve(small_model, port=0, health=False) as server:
        with pytest.raises(grpc.RpcError) as caught:
            health(server.address)
        assert caught.value.code().name == "UNIMPLEMENTED"


RUN = """
import sys, threading, time
import numpy as np
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tfmmrank.serving import Client, serve

server = serve(sys.argv[1], port=0)
print(server.address, flush=True)

def release():
    while not server.core.gate.inside:
        time.sleep(0.01)
    with server.core.manager.acquire(ModelSpec(name="small")) as version:
        print("running", flush=True)
        sys.stdin.readline()
        version.servable.run("go", {"x": np.ones(1, np.float32)})

threading.Thread(target=release, daemon=True).start()
server.run(grace=60)
"""


@pytest.fixture(scope="module", autouse=True)
def process(small_model):
    """A server for a signal to end, which loads TensorFlow while the first tests run."""
    command = [sys.executable, "-c", RUN, str(small_model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, text=True, **pipes)
    yield process
    process.kill()
    process.wait()


def test_sigterm_lets_running_requests_finish(process):
    """The one that runs is answered; those that come after the signal are refused."""
    address = process.stdout.readline().strip()
    with asking(address) as predict:
        running = predict.future(WAIT, timeout=120)
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        until(lambda: health(address) == NOT_SERVING)
        assert refusal(predict, GO) == ("UNAVAILABLE", "the server is shutting down")
        process.stdin.write("\n")
        process.stdin.flush()
        assert running.result().outputs["y"].float_val == [1.0]
    assert process.wait(60) == 0
