"""``tfmmrank prepare``."""

from __future__ import annotations

from pathlib import Path

import click

from tfmmrank.cli.output import Output, with_output


@click.command("prepare")
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@with_output
def command(output: Output, recipe: Path, data: Path) -> None:
    """Read the tables that RECIPE (a YAML file) names, and write the dataset DATA.

    DATA is replaced as a whole: interrupted, it is as it was.
    """
    from tfmmrank.data import prepare
    from tfmmrank.schema import Recipe

    prepared = prepare(Recipe.load(recipe), data, progress=output.progress)
    meta = prepared.meta
    counts = ", ".join(f"{split} {meta['splits'][split]['lists']:,} lists" for split in prepared.splits)
    output.result(
        {"data": str(data), **{key: meta[key] for key in ("name", "num_items", "splits", "report")}},
        f"{data}: {meta['num_items']:,} items; {counts}",
    )
