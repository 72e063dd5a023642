"""A sample of the requests and their answers, as TensorFlow Serving logs them: PredictionLog in TFRecord files."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from tfmmrank.serving.monitoring.log_privacy import Redactor
from tfmmrank.serving.monitoring.rotating_records import RotatingRecords

_LOG = logging.getLogger(__name__)


class LogCounts(NamedTuple):
    """What became of the requests that were offered to a log.

    Attributes:
        offered: requests.
        sampled: those drawn.
        written: those in a file.
        dropped_queue: those that came while too many waited to be written.
        dropped_disk: those that could not be written.
        dropped_damaged: those that could not be read.
    """

    offered: int = 0
    sampled: int = 0
    written: int = 0
    dropped_queue: int = 0
    dropped_disk: int = 0
    dropped_damaged: int = 0


class _Entry(NamedTuple):
    model: str
    version: int
    signature: str
    request: Any
    response: Any
    seconds: int
    size: int


class RequestLog:
    """Keeps a sample of Predict requests; a request that it is offered is neither slowed nor failed by it.

    A thread of its own takes out what must not be kept (``log_privacy``) and writes. Requests wait for it in a queue of
    bounded length and size; what does not fit, or what a full disk does not take, is dropped and counted.

    Classify and Regress, which see single items instead of lists, are not logged.

    Args:
        folder: where files go, see ``RotatingRecords``.
        key: of the hashes of ids and texts, see ``log_privacy.read_key``.
        rate: share of the requests to keep, from 0 to 1.
        plain_text: inputs whose texts may be kept as they are.
        max_waiting: requests that may wait.
        max_waiting_bytes: their size in all.
        max_file_bytes: a file larger than this is complete.
        max_file_seconds: a file older than this is complete.

    Raises:
        OSError: when the folder cannot be made.
        ValueError: for a rate that is none.

    Example:
        >>> with RequestLog("logs", read_key("log.key"), rate=0.01) as log:
        ...     log.record("shop", 3, "rank", request, response)
    """

    def __init__(
        self,
        folder: str | Path,
        key: bytes,
        rate: float = 0.01,
        plain_text: Collection[str] = (),
        max_waiting: int = 1024,
        max_waiting_bytes: int = 64 << 20,
        max_file_bytes: int = 64 << 20,
        max_file_seconds: float = 3600.0,
    ) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate}; expected a share from 0 to 1")
        self.rate, self.max_waiting, self.max_waiting_bytes = rate, max_waiting, max_waiting_bytes
        self._redactor = Redactor(key, plain_text)
        self._files = RotatingRecords(folder, "requests", max_file_bytes, max_file_seconds)
        self._random = random.Random()
        self._waiting: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._counts = dict.fromkeys(LogCounts._fields, 0)
        self._changed = threading.Condition()
        self._closing = False
        self.on_outcome: Callable[[str, str], None] | None = None  # told (model, "written" or "dropped")
        self._thread = threading.Thread(target=self._write_all, name="request log", daemon=True)
        self._thread.start()

    def record(self, model: str, version: int, signature: str, request: Any, response: Any) -> None:
        """Offers an answered request; returns at once.

        Args:
            model: the model that answered.
            version: its version.
            signature: the signature that was run.
            request: the PredictRequest; it must not be changed afterwards.
            response: the PredictResponse; likewise.
        """
        drawn = self._random.random() < self.rate
        size = request.ByteSize() + response.ByteSize() if drawn else 0
        with self._changed:
            self._counts["offered"] += 1
            if not drawn:
                return
            self._counts["sampled"] += 1
            full = len(self._waiting) >= self.max_waiting or self._waiting_bytes + size > self.max_waiting_bytes
            dropped = full or self._closing
            if dropped:
                self._counts["dropped_queue"] += 1
            else:
                self._waiting.append(_Entry(model, version, signature, request, response, int(time.time()), size))
                self._waiting_bytes += size
                self._changed.notify()
        if dropped:
            self._tell(model, "dropped")

    @property
    def counts(self) -> LogCounts:
        """What happened so far."""
        with self._changed:
            return LogCounts(**self._counts)

    def close(self, timeout: float = 10.0) -> None:
        """Writes what waits and completes the file; what a hanging disk does not take in time is given up."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the thread that writes ---------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing, self._files.seconds_left())
                entry = self._waiting.popleft() if self._waiting else None
                closing = self._closing
            if entry is not None:
                self._write(entry)
            elif not closing:
                self._complete(self._files.complete_if_due)
            else:
                self._complete(self._files.close)
                return

    def _write(self, entry: _Entry) -> None:
        try:
            self._files.write(self._log_of(entry).SerializeToString())
            outcome = "written"
        except OSError as error:
            outcome = "dropped_disk"
            self._tell_once(outcome, error)
        except Exception as error:  # a request that cannot be read must not end the log
            outcome = "dropped_damaged"
            self._tell_once(outcome, error)
        with self._changed:
            self._waiting_bytes -= entry.size  # only now: until here it took the memory
            self._counts[outcome] += 1
        self._tell(entry.model, "written" if outcome == "written" else "dropped")

    def _tell(self, model: str, outcome: str) -> None:
        if self.on_outcome is not None:
            self.on_outcome(model, outcome)

    def _log_of(self, entry: _Entry) -> Any:
        log = self._redactor.predict_log(entry.request, entry.response)
        metadata = log.log_metadata
        metadata.model_spec.name = entry.model
        metadata.model_spec.version.value = entry.version
        metadata.model_spec.signature_name = entry.signature
        metadata.sampling_config.sampling_rate = self.rate
        metadata.saved_model_tags.append("serve")
        metadata.timestamp_secs = entry.seconds
        for spec in (log.predict_log.request.model_spec, log.predict_log.response.model_spec):
            spec.CopyFrom(metadata.model_spec)
        return log

    def _complete(self, complete: Any) -> None:
        try:
            complete()
        except OSError as error:
            _LOG.warning("request log: %s: cannot complete the file: %s", self._files.folder, error)

    def _tell_once(self, outcome: str, error: Exception) -> None:
        """One line for the first of its kind; the counts tell the rest."""
        if not self._counts[outcome]:
            _LOG.warning(
                "request log: %s: a request is dropped: %s: %s", self._files.folder, type(error).__name__, error
            )
