"""What TensorFlow Serving's REST API answers to a request, free of sockets.

Paths, messages and statuses are those of ``model_servers/http_rest_api_util.cc`` and ``http_server.cc``.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from tfmmrank.export.servable import DEFAULT_SIGNATURE, RequestError
from tfmmrank.serving.server.json_answers import classifications_text, outputs_text, regressions_text
from tfmmrank.serving.server.json_tensors import fill_inputs, signature_name
from tfmmrank.serving.server.json_text import invalid, parse_object
from tfmmrank.serving.server.rest_examples import fill_examples

if TYPE_CHECKING:
    from tfmmrank.serving.monitoring.metrics import ServingMetrics

METRICS_PATH = "/monitoring/prometheus/metrics"
MAX_BODY = 64 << 20
_LARGE = 1 << 20  # bytes of a body; as Python's values they may take more than twenty times as much memory
_LARGE_AT_ONCE = 2

_MODEL = r"([^/:]+)"
_VERSION = r"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
_FLAGS = re.IGNORECASE | re.ASCII
_PREDICTION = re.compile(rf"/v1/models/{_MODEL}{_VERSION}:(classify|regress|predict)", _FLAGS)
_MODEL_STATUS = re.compile(rf"/v1/models(?:/{_MODEL})?{_VERSION}(?:/(metadata))?", _FLAGS)
_API = re.compile(r"/v1/.*", _FLAGS)

_LARGEST_VERSION, _VERSION_DIGITS = 2**63 - 1, 19  # int64
_MESSAGE_LIMIT = 1024  # of gRPC in TF Serving; a REST message may quote a whole request
_STATUSES = {
    "OK": 200, "CANCELLED": 499, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401, "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400, "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503,
}  # fmt: skip


class Response(NamedTuple):
    """An answer, ready to send."""

    status: int
    body: bytes
    content_type: str = "application/json"


class TooLargeError(ValueError):
    """A body of more bytes than the server takes."""


class RestHandler:
    """Answers REST requests with a server core. Safe to use from several threads.

    Bodies above 1 MiB, unpacked, may take far more memory as Python's values: two of them are read and run at once, and
    others wait, up to ``request_timeout``.

    Args:
        core: what answers: ``tfmmrank.serving.server.core.ServerCore``, or any object with its methods.
        metrics: where requests are counted; its page is served at ``metrics_path``. None: no page.
        request_timeout: seconds that a model may run for a request; None: no limit.
        metrics_path: the page's path.
        max_body: bytes of a body, unpacked.
    """

    def __init__(
        self,
        core: Any,
        metrics: ServingMetrics | None = None,
        *,
        request_timeout: float | None = 30.0,
        metrics_path: str = METRICS_PATH,
        max_body: int = MAX_BODY,
    ) -> None:
        self.core, self.metrics, self.metrics_path = core, metrics, metrics_path
        self.request_timeout, self.max_body = request_timeout, max_body
        self._large = threading.Semaphore(_LARGE_AT_ONCE)
        self._verbs: dict[str, Callable[[Any, dict[str, Any]], str]] = {
            "predict": self._predict,
            "classify": self._classify,
            "regress": self._regress,
        }

    def answer(self, method: str, target: str, body: bytes = b"", encoding: str = "") -> Response:
        """Answers a request; whatever happens, with a status and a body.

        Args:
            method: HTTP's, such as ``GET``.
            target: the path as the client sent it, percent signs and query included.
            body: as sent.
            encoding: the Content-Encoding header: empty, ``identity`` or ``gzip``.
        """
        prediction = _PREDICTION.fullmatch(target) if method == "POST" else None
        if prediction:
            return self._answer_prediction(prediction, body, encoding)
        if method == "GET" and self.metrics and target.partition("?")[0] == self.metrics_path:
            return Response(200, self.metrics.exposition(), "text/plain; version=0.0.4; charset=utf-8")
        status = _MODEL_STATUS.fullmatch(target) if method == "GET" else None
        if status:
            return _guarded(lambda: self._answer_status(status))[1]
        if _API.fullmatch(target):
            return _error(400, f"Malformed request: {method} {target}")
        return _error(404, f"Not found: {method} {target}")

    # -- predictions --------------------------------------------------------------------------------------------------

    def _answer_prediction(self, match: re.Match[str], body: bytes, encoding: str) -> Response:
        began = time.perf_counter()
        verb = match[4].lower()
        code, response = _guarded(lambda: self._predicted(verb, match, body, encoding))
        if self.metrics:
            model = unquote_to_bytes(match[1]).decode("utf-8", "replace")
            self.metrics.observe_request(verb, "REST", model, code, time.perf_counter() - began)
        return response

    def _predicted(self, verb: str, match: re.Match[str], body: bytes, encoding: str) -> str:
        with contextlib.ExitStack() as held:
            try:
                body = unpack(body, encoding, min(_LARGE, self.max_body))
            except TooLargeError:
                held.enter_context(self._place())
                body = unpack(body, encoding, self.max_body)
            return self._verbs[verb](_model_spec(match), parse_object(body))

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """A large body's, from before it is unpacked until it is answered."""
        if not self._large.acquire(timeout=self.request_timeout):
            raise RequestError(
                "RESOURCE_EXHAUSTED", f"the server reads {_LARGE_AT_ONCE} bodies above {_LARGE} bytes at once already"
            )
        try:
            yield
        finally:
            self._large.release()

    def _predict(self, spec: Any, document: dict[str, Any]) -> str:
        from tensorflow_serving.apis import predict_pb2

        spec.signature_name = signature_name(document)
        request = predict_pb2.PredictRequest(model_spec=spec)
        rows = fill_inputs(document, self._inputs(spec), request.inputs)
        return outputs_text(self.core.predict(request, self.request_timeout).outputs, rows)

    def _inputs(self, spec: Any) -> Any:
        """A signature's TensorInfo by input."""
        try:
            return self.core.signature(spec)[1].inputs
        except RequestError as error:
            if error.code != "FAILED_PRECONDITION":
                raise
            name = spec.signature_name or DEFAULT_SIGNATURE
            raise invalid(f'Serving signature name: "{name}" not found in signature def') from error

    def _classify(self, spec: Any, document: dict[str, Any]) -> str:
        from tensorflow_serving.apis import classification_pb2

        spec.signature_name = signature_name(document)
        request = classification_pb2.ClassificationRequest(model_spec=spec)
        fill_examples(document, request.input)
        return classifications_text(self.core.classify(request, self.request_timeout).result)

    def _regress(self, spec: Any, document: dict[str, Any]) -> str:
        from tensorflow_serving.apis import regression_pb2

        spec.signature_name = signature_name(document)
        request = regression_pb2.RegressionRequest(model_spec=spec)
        fill_examples(document, request.input)
        return regressions_text(self.core.regress(request, self.request_timeout).result)

    # -- what is served -----------------------------------------------------------------------------------------------

    def _answer_status(self, match: re.Match[str]) -> str:
        if not match[1]:
            raise invalid("Missing model name in request.")
        document = self._metadata(_model_spec(match)) if match[4] else self._status(_model_spec(match))
        return json.dumps(document, indent=1)

    def _status(self, spec: Any) -> Any:
        from tensorflow_serving.apis import get_model_status_pb2

        return _message(self.core.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec)))

    def _metadata(self, spec: Any) -> Any:
        from tensorflow_serving.apis import get_model_metadata_pb2

        response = self.core.metadata(
            get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            "model_spec": _message(response.model_spec),
            "metadata": {"signature_def": _message(signatures)},
        }


def error_body(message: str) -> bytes:
    """The body of an error."""
    return json.dumps({"error": message[:_MESSAGE_LIMIT]}).encode("ascii")


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """A body as it was before its Content-Encoding.

    Raises:
        RequestError: for an encoding other than gzip, or a broken one.
        TooLargeError: for more than ``limit`` bytes; no more than that is unpacked.
    """
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise invalid(f'Content-Encoding "{encoding}" is not supported; expected gzip or none')
    if encoding == "gzip":
        unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            body = unpacker.decompress(body, limit + 1)
        except zlib.error as error:
            raise invalid(f"the body is no gzip: {error}") from error
        if len(body) <= limit and (not unpacker.eof or unpacker.unused_data):
            raise invalid("the body is no gzip: it is cut short, or something follows it")
    if len(body) > limit:
        raise TooLargeError(f"the body has more than {limit} bytes")
    return body


def _guarded(call: Callable[[], str]) -> tuple[str, Response]:
    """Calls what answers. Returns gRPC's status name and the answer."""
    try:
        return "OK", Response(200, call().encode("utf-8"))
    except RequestError as error:
        return error.code, _error(_STATUSES.get(error.code, 500), str(error))
    except TooLargeError as error:
        return "INVALID_ARGUMENT", _error(413, str(error))
    except Exception:  # a client learns nothing of what the server is made of
        traceback.print_exc(file=sys.stderr)
        return "INTERNAL", _error(500, "Internal error; the server's log tells more")


def _error(status: int, message: str) -> Response:
    return Response(status, error_body(message))


def _model_spec(match: re.Match[str]) -> Any:
    """The ModelSpec that a path names."""
    from tensorflow_serving.apis import model_pb2

    spec = model_pb2.ModelSpec(name=_unquoted(match[1], "model name"))
    if match[2]:
        digits = match[2].lstrip("0")
        if len(digits) > _VERSION_DIGITS or int(digits or "0") > _LARGEST_VERSION:
            raise invalid(f"Failed to convert version: {match[2]} to numeric.")
        spec.version.value = int(digits or "0")
    if match[3]:
        spec.version_label = _unquoted(match[3], "model version label")
    return spec


def _unquoted(text: str, what: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(f"Failed to decode {what}: {text}") from error


def _message(message: Any) -> Any:
    """A message as JSON, with the names of its .proto file and every field that has a default."""
    from google.protobuf import json_format

    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
