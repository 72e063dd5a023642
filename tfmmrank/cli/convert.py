"""``tfmmrank convert``."""

from __future__ import annotations

from pathlib import Path

import click

from tfmmrank.cli.output import Output, with_output


@click.command("convert")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("split")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice(["elwc", "sequence_example", "libsvm"]),
    help="TF-Ranking's ExampleListWithContext or SequenceExample TFRecords, or LETOR's LibSVM text.",
)
@click.option("--columns", default=None, metavar="A,B,C", help="Catalogue columns to write. Default: all but pictures.")
@click.option("--force", is_flag=True, help="Replace OUT when it exists.")
@with_output
def command(output: Output, data: Path, split: str, out: Path, form: str, columns: str | None, force: bool) -> None:
    """Write the lists of a SPLIT of DATA to the file OUT, in TF-Ranking's or LETOR's format.

    The items' columns are repeated in every list, as those formats want it.
    """
    if out.exists() and not force:
        raise ValueError(f"{out}: exists; pass --force to replace it, or choose another file")
    from tfmmrank.data import Prepared
    from tfmmrank.data.formats import export_lists

    chosen = [name.strip() for name in columns.split(",") if name.strip()] if columns is not None else None
    counts = export_lists(Prepared.open(data), split, out, form, chosen)
    output.result({"file": str(out), **counts}, f"{out}: {counts['lists']:,} lists, {counts['rows']:,} rows")
