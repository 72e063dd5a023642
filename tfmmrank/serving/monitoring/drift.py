"""Whether the requests that a model gets, and the scores that it gives, are still those of its training."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.data.text import SCRIPTS
from tfmmrank.serving.monitoring.drift_counts import CategoryCount, Finding, HistogramCount, ShareCount, Thresholds
from tfmmrank.serving.monitoring.log_privacy import STATISTICS, keyed_hash, text_statistics
from tfmmrank.serving.monitoring.logged_requests import LoggedLists, LoggedRequests
from tfmmrank.serving.monitoring.training_statistics import Column, TrainingStatistics

_HEAD: tuple[str, ...] = ("column", "what", "lists", "PSI", "by chance", "KS", "p", "training", "log", "verdict")
_HASH = re.compile(rb"[0-9a-f]{32}")


@dataclass(frozen=True)
class DriftReport:
    """The log beside training.

    Attributes:
        model: whose requests.
        version: which of its versions.
        requests: logged requests that were compared.
        lists: lists in them.
        findings: the comparisons.
        thresholds: how their indices are read.
        not_logged: columns of the statistics that no request held, such as item columns where items come by id.
        hashed: categorical columns that could not be compared for want of the log's key, or with a wrong one.
        training_lists: lists that the version was trained on.
        files: files read.
        partial: files left out because they are still being written.
        damaged: records that could not be read.
        others: records of other models, versions and signatures, by their name.
    """

    model: str
    version: int
    requests: int
    lists: int
    findings: list[Finding]
    thresholds: Thresholds
    not_logged: list[str]
    hashed: list[str]
    training_lists: float
    files: int
    partial: int
    damaged: int
    others: dict[str, int]

    @property
    def worst(self) -> float:
        """The largest index of those that can be told from chance; 0 where there is none."""
        return max((f.psi for f in self.findings if self.thresholds.enough(f)), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        verdicts = [{**asdict(f), "verdict": self.thresholds.verdict(f)} for f in self.findings]
        return {**asdict(self), "findings": verdicts, "worst": self.worst}

    def table(self) -> str:
        """The report as text."""
        rows = [_HEAD]
        for f in self.findings:
            numbers = (_number(x) for x in (f.psi, f.by_chance, f.ks, f.p, f.training, f.logged))
            rows.append((f.column, f.what, f"{f.lists:,}", *numbers, self.thresholds.verdict(f)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if place in (0, 1, 9) else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(
            [f'"{self.model}" version {self.version}: {self.lists:,} lists logged', *lines, *self._notes()]
        )

    def _notes(self) -> list[str]:
        notes = []
        if self.not_logged:
            notes.append(f"not in the log: {', '.join(self.not_logged)}")
        if self.hashed:
            notes.append(
                f"hashed in the log; to compare it, give the key of then (--key-file): {', '.join(self.hashed)}"
            )
        few = [finding for finding in self.findings if not self.thresholds.enough(finding)]
        if any(self._for_ever(finding) for finding in few):
            notes.append(f"too few: training had {self.training_lists:,.0f} lists; where it is so, no log will tell")
        if not all(self._for_ever(finding) for finding in few):
            notes.append("too few: so many lists differ by chance alone; log more, or for longer")
        for name, count in self.others.items():
            notes.append(f"left out: {count:,} requests of {name}")
        if self.damaged:
            notes.append(f"left out: {self.damaged:,} damaged records")
        if self.partial:
            notes.append(f"left out: {self.partial} files still being written")
        return notes

    def _for_ever(self, finding: Finding) -> bool:
        """Whether training's lists alone are too few, however many are logged."""
        of_training = finding.lists / (finding.lists + self.training_lists)
        return not self.thresholds.enough(replace(finding, by_chance=finding.by_chance * of_training))


def compare(
    logs: str | Path,
    version_dir: str | Path,
    model: str | None = None,
    key: bytes | None = None,
    thresholds: Thresholds | None = None,
    progress: bool = True,
) -> DriftReport:
    """Compares logged requests with a version's training statistics.

    Args:
        logs: a folder of request logs, or one file.
        version_dir: the version's folder, such as ``models/shop/3``.
        model: the model's name in the log; default: that of the folder.
        key: of the log's hashes; without it, or with another, hashed categories are not compared.
        thresholds: default: 0.1 and 0.25.
        progress: whether to show a progress bar.

    Raises:
        FileNotFoundError: when there are no logs or no statistics.
        ValueError: when the log holds no list that this version ranked, or columns of another kind.
    """
    folder = Path(version_dir).resolve()
    statistics = TrainingStatistics.read(folder)
    if not folder.name.isdecimal():
        raise ValueError(f"{folder}: expected a version's folder, whose name is a number")
    name, version = model or folder.parent.name, int(folder.name)
    log = LoggedRequests(logs)
    watches = _watches(statistics, key)
    requests = lists = 0
    for logged in tqdm(log.lists(name, version), desc="read log", unit="request", disable=not progress, leave=False):
        requests, lists = requests + 1, lists + len(logged.sizes)
        for watch in watches:
            watch.add(logged)
    if not lists:
        there = ", ".join(log.others) or "nothing that can be read"
        raise ValueError(f'{logs}: holds no list that "{name}" version {version} ranked; it holds: {there}')
    findings = [finding for watch in watches for finding in watch.findings(statistics.lists)]
    return DriftReport(
        name,
        version,
        requests,
        lists,
        findings,
        thresholds or Thresholds(),
        [watch.name for watch in watches if isinstance(watch, _ColumnWatch) and not watch.seen],
        [watch.name for watch in watches if isinstance(watch, _ColumnWatch) and watch.hashed],
        statistics.lists,
        len(log.files),
        log.partial,
        log.damaged,
        dict(log.others),
    )


def _watches(statistics: TrainingStatistics, key: bytes | None) -> list[_ColumnWatch | _AnswerWatch]:
    columns = [_ColumnWatch(name, column, key) for name, column in statistics.columns.items()]
    return [*columns, _AnswerWatch(statistics)]


class _ColumnWatch:
    """Counts one column."""

    def __init__(self, name: str, column: Column, key: bytes | None) -> None:
        self.name, self._kind, self._key = name, column.kind, key
        self.seen = self._named = self._hashes = False
        self._missing = ShareCount(column.missing)
        self._numbers = HistogramCount(column.histogram) if column.histogram else None
        self._words = HistogramCount(column.words) if column.words else None
        self._categories = CategoryCount(column.categories) if column.categories else None
        # A value is logged as it is, or as its hash.
        self._names = {value.encode(): value for value in column.categories}
        if key is not None:
            self._names |= {keyed_hash(key, name, value.encode()): value for value in column.categories}

    @property
    def hashed(self) -> bool:
        """Whether it was logged as hashes that no key here reads: of a new category is one that others stand beside."""
        return self._hashes and (self._key is None or not self._named)

    def add(self, logged: LoggedLists) -> None:
        """Counts a request's values. Raises ValueError where the column is logged as one of another kind."""
        if self.name not in logged.inputs:
            return
        self.seen = True
        values, lists = logged.values(self.name), len(logged.sizes)
        if (values.dtype == object) == (self._kind == "numeric"):
            got = "text" if values.dtype == object else "numbers"
            raise ValueError(
                f'column "{self.name}" is {self._kind} in training and {got} in the log: another model\'s?'
            )
        if self._kind == "numeric":
            numbers = values.reshape(-1).astype(float)
            self._missing.add(~np.isfinite(numbers), lists)  # as the model and the training statistics see it
            self._count_numbers(numbers, lists)
            return
        present = [value for value in values.tolist() if value]
        self._missing.add(np.array([not value for value in values.tolist()], bool), lists)
        if self._kind == "categorical":
            self._count_categories(present, lists)
        elif self._kind == "text":
            self._count_texts(logged, present, lists)

    def _count_numbers(self, numbers: np.ndarray, lists: int) -> None:
        if self._numbers is not None:
            self._numbers.add(numbers, lists)

    def _count_categories(self, present: Iterable[bytes], lists: int) -> None:
        names = [self._names.get(value) for value in present]
        self._named |= any(name is not None for name in names)
        self._hashes |= any(name is None and _HASH.fullmatch(value) for name, value in zip(names, present, strict=True))
        if self._categories is not None:
            self._categories.add(names, lists)

    def _count_texts(self, logged: LoggedLists, present: list[bytes], lists: int) -> None:
        if self.name + STATISTICS in logged.inputs:
            statistics = logged.values(self.name + STATISTICS)
        else:  # a log that TensorFlow Serving wrote itself
            statistics = np.array([text_statistics(value) for value in present], np.int64).reshape(-1, 3)
        statistics = statistics[statistics[:, 0] > 0]
        self._count_numbers(statistics[:, 0].astype(float), lists)
        if self._words is not None:
            self._words.add(statistics[:, 1].astype(float), lists)
        if self._categories is not None:
            self._categories.add([SCRIPTS[script] for script in statistics[:, 2]], lists)

    def findings(self, training_lists: float) -> list[Finding]:
        """The comparisons of what was counted."""
        numbers, categories = ("characters", "script") if self._kind == "text" else ("values", "values")
        found = [
            self._numbers and self._numbers.finding(self.name, numbers, training_lists),
            self._words and self._words.finding(self.name, "words", training_lists),
            self._categories and not self.hashed and self._categories.finding(self.name, categories, training_lists),
            self._missing.finding(self.name, "missing", training_lists),
        ]
        return [finding for finding in found if finding]


class _AnswerWatch:
    """Counts list lengths, unknown ids and the scores of known items."""

    def __init__(self, statistics: TrainingStatistics) -> None:
        self._scores = HistogramCount(statistics.scores) if statistics.scores else None
        self._lengths = HistogramCount(statistics.list_length) if statistics.list_length else None
        self._unknown = ShareCount(0.0)  # what was trained on was known

    def add(self, logged: LoggedLists) -> None:
        """Counts a request's answer."""
        lists = len(logged.sizes)
        if self._lengths is not None:
            self._lengths.add(logged.sizes.astype(float), lists)
        known = logged.values("known").astype(bool) if "known" in logged.outputs else None
        if known is not None:
            self._unknown.add(~known, lists)
        if self._scores is not None and "scores" in logged.outputs:
            scores = logged.values("scores").astype(float)
            self._scores.add(scores if known is None else scores[known], lists)

    def findings(self, training_lists: float) -> list[Finding]:
        """The comparisons of what was counted."""
        found = [
            self._scores and self._scores.finding("scores", "values", training_lists),
            self._lengths and self._lengths.finding("list length", "values", training_lists),
            self._unknown.finding("item ids", "unknown", training_lists),
        ]
        return [finding for finding in found if finding]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
