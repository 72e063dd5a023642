"""``tfmmrank load-test``. Needs no TensorFlow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfmmrank.cli.connection import Connection, with_connection
from tfmmrank.cli.output import Output, with_output

if TYPE_CHECKING:
    from tfmmrank.serving.load_testing.load_report import LoadReport

_BAR = 40  # characters of the histogram's longest


@click.command("load-test")
@with_connection
@click.option(
    "--data", type=click.Path(path_type=Path), default=None, envvar="TFMMRANK_DATASET", show_envvar=True,
    help="A prepared dataset: asks its queries with their items.",
)  # fmt: skip
@click.option("--split", default="test", show_default=True, help="Which of the dataset's queries.")
@click.option(
    "--candidates", type=click.IntRange(1), default=None,
    help="Items of each request: the query's own, and others drawn from the catalogue. Default: its own.",
)  # fmt: skip
@click.option(
    "--requests", "file", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help='Instead of --data\'s: a file with one {"query": …, "item_ids": […], column: value …} a line.',
)  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=None, help="Requests a second.")
@click.option(
    "--arrivals", type=click.Choice(["poisson", "constant"]), default="poisson", show_default=True,
    help="How --rate is spread: as independent users come, or at equal distances.",
)  # fmt: skip
@click.option(
    "--concurrency", type=click.IntRange(1), default=None,
    help="Instead of --rate: so many workers ask back to back. Finds what a server can do at most, but hides queueing: "
    "while the server is slow, less is asked of it.",
)  # fmt: skip
@click.option("--duration", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds.")
@click.option(
    "--warmup", default=1.0, show_default=True, type=click.FloatRange(0), help="Seconds before that do not count."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of arrivals and of items drawn.")
@click.option("--allow-errors", is_flag=True, help="Exit with 0 although requests failed.")
@with_output
def command(
    output: Output,
    connection: Connection,
    data: Path | None,
    split: str,
    candidates: int | None,
    file: Path | None,
    rate: float | None,
    arrivals: str,
    concurrency: int | None,
    duration: float,
    warmup: float,
    seed: int,
    allow_errors: bool,
) -> int:
    """Ask a running server to rank, at a given rate, and print how long the answers took.

    Latency counts from the time at which a request was due, whether or not earlier ones had been answered, so that a
    server that stands still for a second shows it (no coordinated omission). A request that failed counts as one that
    never came. Exits with 1 when one did, unless --allow-errors.
    """
    if (rate is None) == (concurrency is None):
        raise click.UsageError("how many? Give either --rate or --concurrency")
    if file is not None:
        requests = _of_file(connection, file)
    elif data is not None:
        requests = _of_dataset(connection, data, split, candidates, seed)
    else:
        raise click.UsageError("which requests? Give --data or --requests")
    output.say(f"{len(requests):,} different requests; {warmup:g} s of warm-up, {duration:g} s measured")

    import grpc

    from tfmmrank.serving.client.transport import open_channel
    from tfmmrank.serving.load_testing.load_test import PredictStub, closed_loop_test, load_test

    with open_channel(grpc, connection.address, connection.tls, keepalive=None) as channel:
        stub = PredictStub(channel, connection.timeout)
        shown: dict[str, Any] = {"warmup": warmup, "progress": output.progress}
        if rate is not None:
            report = load_test(stub, requests, rate, duration, seed, arrivals=arrivals, **shown)
        elif concurrency is not None:
            report = closed_loop_test(stub, requests, concurrency, duration, **shown)
    output.result(report.as_dict(), _table(report))
    return 1 if report.failed and not allow_errors else 0


def _of_file(connection: Connection, file: Path) -> list[bytes]:
    from tfmmrank.serving.client.questions import Target
    from tfmmrank.serving.load_testing.sample_requests import requests_of_file

    with connection.client() as client:
        return requests_of_file(file, Target(connection.model, label=connection.label), client.signature("rank"))


def _of_dataset(connection: Connection, data: Path, split: str, candidates: int | None, seed: int) -> list[bytes]:
    from tfmmrank.data import Prepared
    from tfmmrank.serving.client.questions import Target
    from tfmmrank.serving.load_testing.sample_requests import requests_of_dataset

    prepared, target = Prepared.open(data), Target(connection.model, label=connection.label)
    with connection.client() as client:
        return requests_of_dataset(prepared, target, client.signature("rank"), split, candidates, seed=seed)


def _table(report: LoadReport) -> str:
    numbers, seconds = report.as_dict(), report.seconds
    asked = f"{report.rate:g} a second" if report.rate is not None else f"{report.concurrency} at once, back to back"
    since = "it was sent" if report.rate is None else "it was due"
    lines = [
        f"{numbers['requests']:,} requests in {seconds:.1f} s, {asked}; answered {report.answered_rate:.1f} a second",
        "status  " + ", ".join(f"{name} {count:,}" for name, count in report.statuses.items()),
        f"latency in ms, from the time when {since}",
        *(f"  {name:<6} {_milliseconds(value):>9}" for name, value in numbers["latency_ms"].items()),
        *_histogram(numbers["histogram_ms"]),
    ]
    late = numbers["generator_late_ms"]
    if late is not None:
        lines.append(f"the generator was late by {late['p99']:.2f} ms in p99, {late['max']:.2f} ms at most")
    if not report.kept_up:
        lines.append("it could not keep up: latencies are its own too; ask for less, or from several machines")
    return "\n".join(lines)


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "failed"


def _histogram(buckets: list[list[float]]) -> list[str]:
    most = max((count for _, count in buckets), default=1)
    return [f"  ≤ {edge:<8g} {count:>9,}  {'#' * math.ceil(_BAR * count / most)}".rstrip() for edge, count in buckets]
