"""``tfmmrank drift``. Needs no TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tfmmrank.cli.output import Output, with_output

_POSITIVE = click.FloatRange(0, min_open=True)


@click.command("drift")
@click.argument("logs", type=click.Path(path_type=Path))
@click.argument("version_dir", metavar="MODEL_VERSION_DIR", type=click.Path(path_type=Path))
@click.option("--model", default=None, help="The model's name in the logs. Default: that of the folder.")
@click.option(
    "--key-file", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="The key that the logs were hashed with. Default: $TFMMRANK_LOG_KEY; without it categories are left out.",
)  # fmt: skip
@click.option("--look", default=0.1, show_default=True, type=_POSITIVE, help="PSI from which a change is worth a look.")
@click.option("--act", default=0.25, show_default=True, type=_POSITIVE, help="PSI above which it is a drift.")
@click.option(
    "--fail-over", default=None, type=_POSITIVE, help="Exit with 1 when a PSI is above this, and more than chance."
)
@with_output
def command(
    output: Output,
    logs: Path,
    version_dir: Path,
    model: str | None,
    key_file: Path | None,
    look: float,
    act: float,
    fail_over: float | None,
) -> int:
    """Compare request LOGS with the training statistics of an exported version, such as models/shop/3.

    For every column, the scores and the lists' lengths: the population stability index (PSI), what it would be on
    average if nothing had changed ("by chance"), Kolmogorov and Smirnov's test; for missing values and unknown ids the
    shares and the two-proportion test. Chance is reckoned by lists, because the values of one list are alike.
    """
    from tfmmrank.serving.monitoring.drift import Thresholds, compare
    from tfmmrank.serving.monitoring.log_privacy import KEY_VARIABLE, read_key

    key = read_key(key_file) if key_file is not None or os.environ.get(KEY_VARIABLE) else None
    report = compare(logs, version_dir, model, key, Thresholds(look, act), output.progress)
    output.result(report.to_dict(), report.table())
    return int(fail_over is not None and report.worst > fail_over)
