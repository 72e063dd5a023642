"""``tfmmrank distill``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tfmmrank.cli.output import Output, with_output, with_plugins

DISTILLED_FILE = "distilled.json"


@click.command("distill")
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--blocks", default=2, show_default=True, type=click.IntRange(1), help="Of the student's query encoder.")
@click.option("--epochs", default=10, show_default=True, type=click.IntRange(1), help="Passes over the texts.")
@click.option(
    "--texts", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
    help="More texts like queries, one a line, such as those of a search log.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of sampling and order.")
@with_output
@with_plugins
def command(
    output: Output, run: Path, data: Path, out: Path, blocks: int, epochs: int, texts: Path | None, seed: int
) -> None:
    """Teach a ranker with a smaller query encoder what the ranker of RUN gives, on the texts of DATA, into OUT.

    Serving computes the query's tower anew for every request, and its time falls with its encoder's blocks. OUT holds a
    ranker as a training leaves one: evaluate it before it is exported.
    """
    from tfmmrank.data import Prepared
    from tfmmrank.runs import keep_queries

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists; choose another folder")
    prepared = Prepared.open(data)
    more = read_texts(texts) if texts is not None else []

    from tfmmrank.atomic import replace_directory
    from tfmmrank.ranker import Ranker
    from tfmmrank.training import distill

    teacher = Ranker.load_ranker(run / "ranker")
    student, history = distill(teacher, prepared, blocks, epochs, texts=more, seed=seed, progress=output.progress)
    best = min(range(epochs), key=lambda epoch: history["val_scores"][epoch])
    found: dict[str, Any] = {
        "teacher": str(run.resolve()), "blocks": blocks, "seed": seed, "best_epoch": best + 1,
        **{name: values[best] for name, values in history.items()},
    }  # fmt: skip
    with replace_directory(out, replace=False) as aside:
        student.save_ranker(aside / "ranker")
        keep_queries(aside, prepared)
        (aside / DISTILLED_FILE).write_text(json.dumps({**found, "history": history}, indent=1) + "\n", "utf-8")
    figures = ", ".join(f"{name} {values[best]:.4f}" for name, values in history.items())
    output.result({"run": str(out), **found}, f"{out}: kept epoch {best + 1} of {epochs}: {figures}")


def read_texts(file: Path) -> list[str]:
    """A file's lines, those with nothing in them left out.

    Raises:
        ValueError: for bytes that are no UTF-8, with the line.
    """
    found = []
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}, line {number}: {line[:40]!r} is not UTF-8") from error
        if text:
            found.append(text)
    return found
