"""A REST port that knows one model in one state, as TensorFlow Serving prints it."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StatusServer(ThreadingHTTPServer):
    """Answers GET /v1/models/shop, of which it knows version 1, with ``state``, and any other with 404."""

    daemon_threads = True

    def __init__(self, state: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path in ("/v1/models/shop", "/v1/models/shop/versions/1")
        status = {"error_code": "OK" if self.server.state != "END" else "UNAVAILABLE", "error_message": ""}
        versions = [{"version": "1", "state": self.server.state, "status": status}]
        answer = {"model_version_status": versions} if known else {"error": "Could not find any versions of model"}
        body = json.dumps(answer, indent=1).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def status_server(state: str):
    """Runs one; yields it."""
    with StatusServer(state) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
