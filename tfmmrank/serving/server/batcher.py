"""Batching as TensorFlow Serving does it: requests that wait together are run as one, padded and cut apart again."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from tfmmrank.export.request_error import RequestError
from tfmmrank.serving.server.batch_tensors import Arrays, Batching, batch_size, merge, split


class Batcher:
    """Runs requests of one signature together; its threads serve all models.

    Args:
        options: how.
    """

    def __init__(self, options: Batching) -> None:
        self.options = options
        self._queues: collections.OrderedDict[Any, _Queue] = collections.OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch {place}", daemon=True)
            for place in range(options.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def wrap(self, servable: Any) -> BatchedServable:
        """The servable with its requests batched."""
        return BatchedServable(servable, self)

    def close(self) -> None:
        """Runs what waits, and ends the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, key: Any, process: Callable[[list[_Task]], None], task: _Task) -> None:
        """Queues a task with those of the same key.

        Raises:
            RequestError: when it is too large, or the queue is full.
        """
        limit = self.options.max_batch_size
        if task.size > limit:
            raise RequestError(
                "INVALID_ARGUMENT", f"Task size {task.size} is larger than maximum input batch size {limit}"
            )
        with self._changed:
            if self._closed:
                raise RequestError("UNAVAILABLE", "the server is shutting down")
            queue = self._queues.setdefault(key, _Queue(process))
            queue.add(task, self.options)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                chosen = self._next_batch()
            if chosen is None:
                return
            process, tasks = chosen
            process(tasks)
            del chosen, process, tasks  # or an idle thread would keep an unloaded model

    def _next_batch(self) -> tuple[Callable[[list[_Task]], None], list[_Task]] | None:
        """Waits for a batch that may run; None when there is none to come."""
        while True:
            now = time.monotonic()
            for key, queue in self._queues.items():
                if self._closed or queue.due(now, self.options) <= 0:
                    batch = queue.batches.popleft()
                    self._queues.move_to_end(key)  # the other signatures are next
                    if not queue.batches:
                        del self._queues[key]
                    return queue.process, batch
            if self._closed:
                return None
            waits = [queue.due(now, self.options) for queue in self._queues.values()]
            self._changed.wait(min(waits, default=None))


class _Task:
    """A request in the queue."""

    def __init__(self, inputs: Arrays, timeout: float | None) -> None:
        self.inputs, self.size = inputs, batch_size(inputs)
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.done: Future[dict[str, np.ndarray]] = Future()


class _Queue:
    """The batches of one signature, the last one of which is open; never an empty one."""

    def __init__(self, process: Callable[[list[_Task]], None]) -> None:
        self.process = process
        self.batches: collections.deque[list[_Task]] = collections.deque()
        self._opened = 0.0

    def add(self, task: _Task, options: Batching) -> None:
        if not self.batches or _size(self.batches[-1]) + task.size > options.max_batch_size:
            if len(self.batches) >= options.max_enqueued_batches:
                raise RequestError(
                    "UNAVAILABLE",
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{len(self.batches)} batches enqueued and max_enqueued_batches is {options.max_enqueued_batches}",
                )
            self.batches.append([])
            self._opened = time.monotonic()
        self.batches[-1].append(task)

    def due(self, now: float, options: Batching) -> float:
        """Seconds until the first batch may run."""
        if len(self.batches) > 1 or _size(self.batches[0]) >= options.max_batch_size:
            return 0.0
        return self._opened + options.batch_timeout_micros / 1e6 - now


class BatchedServable:
    """A servable whose requests are run together; all else is the servable's own."""

    def __init__(self, servable: Any, batcher: Batcher) -> None:
        self._servable, self._batcher = servable, batcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._servable, name)

    def run(
        self, signature: str, inputs: Arrays, output_filter: Sequence[str] = (), timeout: float | None = None
    ) -> dict[str, np.ndarray]:
        """As ``Servable.run``. Raises RequestError, also for a full queue."""
        # A request that does not fit is refused here: it must not spoil a batch.
        outputs = tuple(self._servable.check(signature, inputs, output_filter))
        task = _Task(inputs, timeout) if inputs else None
        if task is None or not task.size:  # no row that a batch could be cut at
            return self._servable.run(signature, inputs, outputs, timeout)
        servable, options = self._servable, self._batcher.options

        def process(tasks: list[_Task]) -> None:
            _process(tasks, options, lambda merged, left: servable.run(signature, merged, outputs, left))

        self._batcher.submit((id(servable), signature, tuple(sorted(outputs))), process, task)
        try:
            return task.done.result()
        finally:
            del task  # an error's traceback holds this frame: no cycle may keep the request until the collector comes


def _process(
    tasks: list[_Task], options: Batching, run: Callable[[Arrays, float | None], dict[str, np.ndarray]]
) -> None:
    """Runs tasks as one, and tells each its part or what went wrong."""
    now = time.monotonic()
    for task in [task for task in tasks if task.deadline is not None and task.deadline <= now]:
        tasks.remove(task)
        message = "Run() timeout exceeded while waiting in batching queue"
        task.done.set_exception(RequestError("RESOURCE_EXHAUSTED", message))
    if not tasks:
        return
    deadlines = [task.deadline for task in tasks]
    left = None if None in deadlines else max(deadline for deadline in deadlines if deadline is not None) - now
    sizes = [task.size for task in tasks]
    try:
        outputs = run(merge([task.inputs for task in tasks], options), left)
        parts = split(outputs, sizes, options.padded_size(sum(sizes)))
    except RequestError as error:
        if error.code == "INVALID_ARGUMENT" and len(tasks) > 1:  # one request's fault: the others are answered
            for task in tasks:
                _process([task], options, run)
            return
        while tasks:
            tasks.pop().done.set_exception(RequestError(error.code, str(error)))
    except Exception as error:  # each waits for an answer, whatever it is
        while tasks:  # emptied, for the error's traceback holds it
            tasks.pop().done.set_exception(error)
    else:
        for task, part in zip(tasks, parts, strict=True):
            task.done.set_result(part)


def _size(tasks: Sequence[_Task]) -> int:
    return sum(task.size for task in tasks)
