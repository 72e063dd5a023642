"""Malformed requests by the thousand: what a server answers, whether it stays up, and whether its memory grows."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml
from PIL import Image

from benchmarks.examples import ROOT
from benchmarks.serving.figures import Figures
from benchmarks.serving.models import Model, shop_model
from benchmarks.serving.running import Process, rank_requests, serving
from tfmmrank.serving.client.transport import open_channel
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import write_tensor

_REQUESTS = 20_000
_REST_SHARE = 0.3
_SETTLING = 4_000  # requests before memory counts
_EVERY, _READINGS = 1_000, 5  # memory is read after so many requests; medians of so many readings are compared
_TIMEOUT = 30.0
#: A request that is wrong gets one of these; a mutation may also leave it right.
_REFUSALS = {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
_UNPARSABLE = "INTERNAL"  # gRPC's own answer to bytes that are no message
_REST_REFUSALS = {200, 400, 404, 405, 411, 412, 413, 415, 429}
_CONTRACT = ROOT / "serving" / "openapi.yaml"


def fuzz(out: Path) -> Figures:
    """20,000 malformed requests over gRPC and REST, then a fuzz by the REST API's schema.

    Memory is resident memory after every 1,000 requests from 4,000 on: the median of the first five readings against
    that of the last five, since single ones swing with what the allocator holds at the moment.
    """
    model = shop_model(out)
    with serving(model.folder, "--rest-api-port", "0") as process:
        fuzzer = _Fuzzer(model, process)
        fuzzer.run(_SETTLING)
        memory = []
        for _ in range((_REQUESTS - _SETTLING) // _EVERY):
            fuzzer.run(_EVERY)
            memory.append(process.memory)
        by_schema = _by_schema(process)
        if not process.running:
            raise RuntimeError("the server ended")
        healthy = fuzzer.answers_as_before()
    for wrong, count in Counter(fuzzer.wrong).items():
        print(f"wrong: {wrong}, {count} times", file=sys.stderr)
    first, last = float(np.median(memory[:_READINGS])), float(np.median(memory[-_READINGS:]))
    return {
        f"{_REQUESTS:,} malformed requests": {
            "answered with a wrong status": len(fuzzer.wrong), "no answer within 30 s": fuzzer.hung,
            "a good request is answered as before": healthy, "fuzz by the REST API's schema passed": by_schema,
            f"memory after {_SETTLING:,}, MB": first, "memory at the end, MB": last,
            "memory at the end, times that": last / first, "greatest memory, MB": max(memory),
        },
        "answers": dict(sorted(fuzzer.statuses.items())),
    }  # fmt: skip


class _Fuzzer:
    """Makes malformed requests and keeps what is answered."""

    def __init__(self, model: Model, process: Process) -> None:
        self.rng = np.random.default_rng(0)
        self.statuses: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.hung = 0
        self._call = open_channel(grpc, process.address, None, keepalive=None).unary_unary(wire.PREDICT)
        self._host, self._path = str(process.rest_address), f"/v1/models/{process.model}"
        self._valid = rank_requests(model.data, process, 10)
        self._bodies = [_rest_body(request) for request in self._valid]
        self._ways: list[Callable[[], bytes]] = [
            self._flipped, self._cut, self._random, self._other_types, self._other_shapes, self._other_names,
            self._bomb, self._huge,
        ]  # fmt: skip
        self._model = process.model
        self._first = self._call(self._valid[0], timeout=_TIMEOUT)

    def run(self, count: int) -> None:
        """Sends so many."""
        for _ in range(count):
            if self.rng.random() < _REST_SHARE:
                self._rest()
            else:
                self._grpc()

    def answers_as_before(self) -> bool:
        """Whether a good request is still answered as the first was."""
        return self._call(self._valid[0], timeout=_TIMEOUT) == self._first

    def _grpc(self) -> None:
        way = self._ways[self.rng.integers(len(self._ways))]
        request = way()
        status, parses = "OK", _parses(request)
        try:
            self._call(request, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            status = error.code().name
        self.statuses[f"gRPC {status}"] += 1
        self.hung += status == "DEADLINE_EXCEEDED"
        if status not in _REFUSALS and (parses or status != _UNPARSABLE):
            self.wrong.append(f"{way.__name__}: {status}")

    def _rest(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=_TIMEOUT)
        body = bytearray(self._bodies[self.rng.integers(len(self._bodies))])
        kind = self.rng.integers(4)
        if kind == 0:
            body = self._flip(body)
        elif kind == 1:
            body = body[: self.rng.integers(len(body))]
        elif kind == 2:
            body = bytearray(b"[" * int(self.rng.integers(1, 200_000)))
        else:
            body = bytearray(json.dumps({"instances": _nonsense(self.rng)}).encode())
        verb = str(
            self.rng.choice(
                [":predict", ":classify", ":regress", ":predictt", "/versions/9:predict", "/labels/x:predict"]
            )
        )
        try:
            connection.request("POST", self._path + verb, bytes(body))
            status = connection.getresponse().status
        except TimeoutError:
            status, self.hung = 0, self.hung + 1
        finally:
            connection.close()
        self.statuses[f"REST {status}"] += 1
        if status not in _REST_REFUSALS:
            self.wrong.append(f"REST {verb}: {status}")

    # -- ways of being malformed ------------------------------------------------------------------------------------

    def _request(self) -> Any:
        return wire.PredictRequest.FromString(self._valid[self.rng.integers(len(self._valid))])

    def _flip(self, content: bytearray) -> bytearray:
        for place in self.rng.integers(0, len(content), self.rng.integers(1, 8)):
            content[place] = int(self.rng.integers(256))
        return content

    def _flipped(self) -> bytes:
        return bytes(self._flip(bytearray(self._request().SerializeToString())))

    def _cut(self) -> bytes:
        content = self._request().SerializeToString()
        return content[: self.rng.integers(len(content))]

    def _random(self) -> bytes:
        return self.rng.bytes(int(self.rng.integers(0, 2000)))

    def _other_types(self) -> bytes:
        request = self._request()
        name = str(self.rng.choice(sorted(request.inputs)))
        values: list[Any] = [
            np.zeros([1, 10], np.float64), np.zeros([1], np.int64), np.array([["text"] * 10]), np.zeros([1, 10], bool),
            np.full([1], 2**31 - 1, np.int32), np.full([1], -5, np.int32), np.array([[b"\xff\xfe\x00"] * 10], object),
        ]  # fmt: skip
        request.inputs[name].Clear()
        write_tensor(request.inputs[name], values[self.rng.integers(len(values))])
        return request.SerializeToString()

    def _other_shapes(self) -> bytes:
        request = self._request()
        tensor = request.inputs[str(self.rng.choice(sorted(request.inputs)))]
        for dim in tensor.tensor_shape.dim:
            dim.size = int(self.rng.choice([-1, 0, 1, 3, 10, 1000, 10**9, 2**62]))
        if self.rng.random() < 0.3:
            tensor.tensor_shape.dim.add(size=int(self.rng.integers(0, 5)))
        return request.SerializeToString()

    def _other_names(self) -> bytes:
        request = self._request()
        kind = self.rng.integers(5)
        if kind == 0:
            request.model_spec.signature_name = "nonsense"
        elif kind == 1:
            request.model_spec.name = str(self.rng.choice(["", "other", "../../etc/passwd", "x" * 10_000]))
        elif kind == 2:
            request.model_spec.version.value = int(self.rng.choice([0, -1, 99, 2**62]))
        elif kind == 3:
            request.output_filter.extend(["scores", "scores"])
        else:
            request.inputs["extra"].CopyFrom(request.inputs["item_ids"])
        return request.SerializeToString()

    def _bomb(self) -> bytes:
        """Raw items whose picture is large when it is decoded, or is none."""
        pictures = [_BOMB, b"\xff\xd8\xff\xe0" + self.rng.bytes(50), b"GIF89a" + b"\xff" * 20, self.rng.bytes(100)]
        request = wire.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._model, "rank_features"
        inputs = {
            "query": np.array([b"red"], object), "title": np.array([[b"a shoe"]], object),
            "image": np.array([[pictures[self.rng.integers(len(pictures))]]], object),
            "past_impressions": np.zeros([1, 1], np.float32), "past_ctr": np.zeros([1, 1], np.float32),
            "age_days": np.zeros([1, 1], np.float32), "num_items": np.array([1], np.int32),
        }  # fmt: skip
        for name, value in inputs.items():
            write_tensor(request.inputs[name], value)
        return request.SerializeToString()

    def _huge(self) -> bytes:
        """Ids of a megabyte, or very many of them."""
        request = self._request()
        ids = [["x" * 100_000] * 10] if self.rng.random() < 0.5 else [["y"] * 20_000]
        request.inputs["item_ids"].Clear()
        write_tensor(request.inputs["item_ids"], np.array(ids))
        return request.SerializeToString()


def _picture_bomb() -> bytes:
    out = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(out, "PNG")
    return out.getvalue()


_BOMB = _picture_bomb()


def _parses(request: bytes) -> bool:
    """Whether the server's class takes it; the client's declares fewer fields, and so checks fewer."""
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    try:
        PredictRequest.FromString(request)
    except Exception:  # protobuf's implementations raise different ones
        return False
    return True


def _rest_body(request: bytes) -> bytes:
    message = wire.PredictRequest.FromString(request)
    ids = [item.decode() for item in message.inputs["item_ids"].string_val]
    query = message.inputs["query"].string_val[0].decode()
    return json.dumps({"inputs": {"query": [query], "item_ids": [ids], "num_items": [len(ids)]}}).encode()


def _nonsense(rng: np.random.Generator, depth: int = 0) -> Any:
    kind = rng.integers(7 if depth < 4 else 5)
    if kind == 5:
        return [_nonsense(rng, depth + 1) for _ in range(rng.integers(0, 4))]
    if kind == 6:
        keys = rng.choice(["query", "item_ids", "num_items", "b64", "", "x"], rng.integers(0, 4), replace=False)
        return {str(key): _nonsense(rng, depth + 1) for key in keys}
    return [None, True, float(rng.normal() * 1e30), int(rng.integers(-(2**40), 2**40)), "text\u0000é"][kind]


def _by_schema(process: Process) -> bool:
    """Schemathesis's examples of the API's contract; a server error or an answer against the contract fails."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as schema:
        yaml.safe_dump(_narrowed(process.model), schema)
        schema.flush()
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", schema.name, "--url",
            f"http://{process.rest_address}", "--seed", "0", "--max-examples", "200", "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ]  # fmt: skip
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        print(ended.stdout[-5000:], file=sys.stderr)
    return not ended.returncode


def _narrowed(model: str) -> Any:
    """The contract for one model and short lists: of all that it allows, hardly a question would reach the model."""
    contract = yaml.safe_load(_CONTRACT.read_text("utf-8"))
    contract["components"]["parameters"]["model"]["schema"] = {"enum": [model]}
    contract["components"]["parameters"]["version"]["schema"] = {"enum": [1]}
    schemas = contract["components"]["schemas"]
    text, size = {"type": "string"}, {"type": "integer", "minimum": 0, "maximum": 10}
    ids = {"type": "array", "maxItems": 8, "items": text}
    row = {"query": text, "item_ids": ids, "num_items": size}
    column = {name: {"type": "array", "minItems": 1, "maxItems": 3, "items": each} for name, each in row.items()}
    rank = {"enum": ["rank", "serving_default"]}
    schemas["Columns"] = _exactly({"inputs": _exactly(column), "signature_name": rank}, optional="signature_name")
    rows = {"type": "array", "minItems": 1, "maxItems": 3, "items": _exactly(row)}
    schemas["Rows"] = _exactly({"instances": rows, "signature_name": rank}, optional="signature_name")
    number = {"type": "number"}
    schemas["Example"]["properties"] = {"query": text, "title": text, "past_impressions": number}
    schemas["Example"]["additionalProperties"] = False
    schemas["Examples"]["properties"]["signature_name"] = {"enum": ["regress", "classify"]}
    schemas["Examples"]["properties"]["examples"]["maxItems"] = 8
    return contract


def _exactly(properties: dict[str, Any], optional: str = "") -> dict[str, Any]:
    required = [name for name in properties if name != optional]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
