"""``tfmmrank export``."""

from __future__ import annotations

from pathlib import Path

import click

from tfmmrank.cli.output import Output, with_output, with_plugins


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(file_okay=False, path_type=Path))
@click.option("--version", type=click.IntRange(1), default=None, help="Default: one more than the highest there.")
@with_output
@with_plugins
def command(output: Output, run: Path, data: Path, model: Path, version: int | None) -> None:
    """Write the ranker of the training folder RUN, with the catalogue of DATA, as MODEL/VERSION.

    The folder's name is the model's. It is what TensorFlow Serving (2.20 or newer) reads, warm-up requests included;
    every op in it is one that the stock server knows.
    """
    from tfmmrank.data import Prepared

    prepared = Prepared.open(data)

    from tfmmrank.export import export
    from tfmmrank.ranker import Ranker

    ranker = Ranker.load_ranker(run / "ranker")
    written = export(ranker, prepared, model, version=version, progress=output.progress)
    output.result(
        {"model": model.resolve().name, "version": int(written.name), "path": str(written)},
        f"{written}: written and checked. Next: tfmmrank serve {model}",
    )
