"""``tfmmrank export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from tfmmrank.cli.output import Output, with_output, with_plugins


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(file_okay=False, path_type=Path))
@click.option("--version", type=click.IntRange(1), default=None, help="Default: one more than the highest there.")
@click.option(
    "--update-items",
    is_flag=True,
    help="Go on from MODEL's latest version, which must be of the same ranker: only items that are new or changed in "
    "DATA are encoded.",
)
@click.option(
    "--weights",
    type=click.Choice(["float32", "float16", "int8"]),
    default=None,
    help="How the towers' weights are kept: smaller ones take less memory, and move scores a little. Default: float32, "
    "and with --update-items as in the latest version.",
)
@with_output
@with_plugins
def command(
    output: Output,
    run: Path,
    data: Path,
    model: Path,
    version: int | None,
    update_items: bool,
    weights: str | None,
) -> None:
    """Write the ranker of the training folder RUN, with the catalogue of DATA, as MODEL/VERSION.

    The folder's name is the model's. It is what TensorFlow Serving (2.20 or newer) reads, warm-up requests included;
    every op in it is one that the stock server knows, if it is as new as the TensorFlow installed here.
    """
    from tfmmrank.data import Prepared

    prepared = Prepared.open(data)

    from tfmmrank import export
    from tfmmrank.ranker import Ranker

    ranker = Ranker.load_ranker(run / "ranker")
    if update_items:
        update = export.update_items(ranker, prepared, model, version, output.progress, weights=weights)
        written = update.path
        items = {name: count for name, count in asdict(update).items() if isinstance(count, int)}
        found = {"items": items}
        what = f"written and checked; items: {', '.join(f'{count} {name}' for name, count in items.items())}"
    else:
        written = export.export(ranker, prepared, model, version, output.progress, weights=weights or "float32")
        found, what = {}, "written and checked"
    output.result(
        {"model": model.resolve().name, "version": int(written.name), "path": str(written), **found},
        f"{written}: {what}. Next: tfmmrank serve {model}",
    )
