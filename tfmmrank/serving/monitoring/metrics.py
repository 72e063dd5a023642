"""Metrics for Prometheus: TensorFlow Serving's own, by its names, and the health of the ranking model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from tfmmrank.serving.monitoring.metric_families import Counters, Histograms

_REQUEST_COUNT = ":tensorflow:serving:request_count"
_LOAD_COUNT = ":tensorflow:cc:saved_model:load_attempt_count"
# TF Serving's, microseconds: 10 µs times 1.8, 33 times, about 20 minutes (``servables/tensorflow/util.cc``).
_LATENCIES = [10 * 1.8**n for n in range(33)]
# Scores are sums without a scale: powers of two to both sides of 0, from ±0.25 to ±128, tell a shift and a spread.
_SCORES = [*(-0.25 * 2**n for n in range(9, -1, -1)), 0.0, *(0.25 * 2**n for n in range(10))]
_LIST_LENGTHS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]

_NAMED_MODELS = 100  # names that clients may invent: each is a line of the page for as long as the server runs
_NAME_LENGTH = 100
_OTHER = "other"
_MODEL, _RANKING, _RESULT = ("model_name",), ("model_name", "signature_name"), ("model_name", "result")


class ServingMetrics:
    """Counts what a server does. Thread-safe; an observation takes microseconds.

    TensorFlow Serving's metrics, latencies in microseconds:

    - ``:tensorflow:serving:request_count{model_name, status}``
    - ``:tensorflow:serving:request_latency{model_name, API, entrypoint}``, of requests that were answered
    - ``:tensorflow:serving:runtime_latency{model_name, API, runtime}``
    - ``:tensorflow:cc:saved_model:load_attempt_count{model_path, status}``, status ``success`` or ``fail``

    The model's:

    - ``tfmmrank_ranked_items_total``, ``tfmmrank_unknown_items_total``, ``tfmmrank_list_length`` and
      ``tfmmrank_scores``, by ``model_name`` and ``signature_name``
    - ``tfmmrank_values_total`` and ``tfmmrank_missing_values_total``, by ``model_name`` and ``column``
    - ``tfmmrank_model_version_state{model_name, version, state}``: 1 for the state that a version is in
    - ``tfmmrank_result_cache_total`` and ``tfmmrank_request_log_records_total``, by ``model_name`` and ``result``

    Args:
        registry: where they are registered, beside others if wanted; default: one of their own.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._requests = Counters(_REQUEST_COUNT, "The total number of requests.", (*_MODEL, "status"))
        self._request_latency = Histograms(
            ":tensorflow:serving:request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            (*_MODEL, "API", "entrypoint"),
            _LATENCIES,
        )
        self._runtime_latency = Histograms(
            ":tensorflow:serving:runtime_latency",
            "Distribution of wall time (in microseconds) for Tensorflow runtime.",
            (*_MODEL, "API", "runtime"),
            _LATENCIES,
        )
        self._loads = Counters(
            _LOAD_COUNT, "The number of times a SavedModel was requested to be loaded.", ("model_path", "status")
        )
        self._ranked = Counters("tfmmrank_ranked_items_total", "Items that were ranked.", _RANKING)
        self._unknown = Counters("tfmmrank_unknown_items_total", "Items that the catalogue lacks.", _RANKING)
        self._lengths = Histograms("tfmmrank_list_length", "Items of a list.", _RANKING, _LIST_LENGTHS)
        self._scores = Histograms("tfmmrank_scores", "Scores of known items.", _RANKING, _SCORES)
        self._values = Counters("tfmmrank_values_total", "Values that models were given.", (*_MODEL, "column"))
        self._missing = Counters(
            "tfmmrank_missing_values_total",
            "Values that were missing, of all that models were given.",
            (*_MODEL, "column"),
        )
        self._cache = Counters("tfmmrank_result_cache_total", "Look-ups in the result cache.", _RESULT)
        self._logged = Counters("tfmmrank_request_log_records_total", "Records for the request log.", _RESULT)
        self._states: dict[tuple[str, int], str] = {}
        self._models: set[str] = set()  # that are or were served
        self._named: set[str] = set()  # that clients named
        self._lock = threading.Lock()
        self._registry = registry if registry is not None else CollectorRegistry()
        self._registry.register(self)

    # -- requests -----------------------------------------------------------------------------------------------------

    def observe_request(self, api: str, entrypoint: str, model: str, status: str, seconds: float) -> None:
        """Counts a request.

        Args:
            api: what was called, such as ``Predict``; over REST TensorFlow Serving writes ``predict``.
            entrypoint: ``GRPC`` or ``REST``.
            model: the name that the request gave. Past a hundred that no model has, they are counted as ``other``.
            status: gRPC's status name, such as ``OK``.
            seconds: from its arrival to its answer.
        """
        model = self._known_name(model)
        self._requests.add((model, status))
        if status == "OK":
            self._request_latency.observe((model, api, entrypoint), seconds * 1e6)

    def observe_runtime(self, api: str, model: str, seconds: float) -> None:
        """Counts a run of a model's graph."""
        self._runtime_latency.observe((model, api, "TF1"), seconds * 1e6)

    def observe_load(self, directory: Path, well: bool) -> None:
        """Counts an attempt to load a version from its folder, and whether it went well."""
        self._loads.add((str(directory), "success" if well else "fail"))

    def model_state(self, model: str, version: int, state: str) -> None:
        """Tells the state that a version is in now, such as ``AVAILABLE``; one at its ``END`` is forgotten."""
        with self._lock:
            self._models.add(model)
            if state == "END":
                self._states.pop((model, version), None)
            else:
                self._states[model, version] = state

    # -- the model's health -------------------------------------------------------------------------------------------

    def observe_ranking(
        self, model: str, signature: str, known: np.ndarray | None, scores: np.ndarray, real: np.ndarray
    ) -> None:
        """Counts the lists of an answer.

        Args:
            model: its name.
            signature: its signature.
            known: bool ``[B, L]``: whether the catalogue has the item; None: all are known.
            scores: ``[B, L]``.
            real: bool ``[B, L]``: whether the place is an item's, not padding.
        """
        labels = (model, signature)
        ranked = real if known is None else real & known
        lengths = real.sum(1)
        count = int(lengths.sum())
        self._ranked.add(labels, count)
        self._unknown.add(labels, count - int(ranked.sum()))
        self._lengths.observe_many(labels, lengths)
        self._scores.observe_many(labels, scores[ranked])

    def observe_missing(self, model: str, column: str, missing: int, total: int) -> None:
        """Counts a column's values in a request, and those of them that were missing."""
        self._values.add((model, column), total)
        self._missing.add((model, column), missing)

    def observe_cache(self, model: str, result: str, count: int = 1) -> None:
        """Counts look-ups in the result cache: ``hit``, ``miss``, ``error`` or ``skipped`` (``result_cache.Found``)."""
        self._cache.add((model, result), count)

    def observe_log(self, model: str, result: str, count: int = 1) -> None:
        """Counts records for the request log: ``written`` or ``dropped``."""
        self._logged.add((model, result), count)

    # -- the page -----------------------------------------------------------------------------------------------------

    def exposition(self) -> bytes:
        """The registry's metrics as Prometheus reads them."""
        page = generate_latest(self._registry)
        for name in (_REQUEST_COUNT, _LOAD_COUNT):  # the library ends every counter's name with _total
            page = page.replace(f" {name}_total ".encode(), f" {name} ".encode())
        return page

    def collect(self) -> Iterator[Metric]:
        """Prometheus's collector interface."""
        for family in (
            self._requests, self._request_latency, self._runtime_latency, self._loads, self._ranked, self._unknown,
            self._lengths, self._scores, self._values, self._missing, self._cache, self._logged,
        ):  # fmt: skip
            yield family.collect()
        states = Metric("tfmmrank_model_version_state", "1 for the state that a version is in.", "gauge")
        with self._lock:
            current = dict(self._states)
        for (model, version), state in current.items():
            labels = {"model_name": model, "version": str(version), "state": state}
            states.add_sample(states.name, labels, 1)
        yield states

    def _known_name(self, model: str) -> str:
        """A request's model name as a label."""
        model = model[:_NAME_LENGTH]
        if model in self._models or model in self._named:
            return model
        with self._lock:
            if len(self._named) == _NAMED_MODELS:
                return _OTHER
            self._named.add(model)
        return model
