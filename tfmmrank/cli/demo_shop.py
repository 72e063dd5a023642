"""``tfmmrank demo-shop``."""

from __future__ import annotations

from pathlib import Path

import click

from tfmmrank.cli.output import Output, with_output

MARKER = ".demo-shop"  # by which a shop that this command made is known
_MADE = {MARKER, "images", "items.parquet", "judgements.csv", "logs.parquet", "queries.csv", "shop.yaml", "truth"}


@click.command("demo-shop")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True, help="One seed gives the same shop.")
@click.option("--items", default=3000, show_default=True, type=click.IntRange(100), help="Number of items.")
@click.option("--queries", default=800, show_default=True, type=click.IntRange(10), help="Number of queries.")
@with_output
def command(output: Output, directory: Path, seed: int, items: int, queries: int) -> None:
    """Write a made-up shop into DIRECTORY: tables, drawn pictures, a behaviour log, and the recipe shop.yaml.

    Some of what a query asks for can only be read (in English or Chinese), some only be seen in the picture, some only
    be known from past behaviour; the true relevance is known. An earlier demo shop in DIRECTORY is replaced as a whole.
    """
    _refuse_others(directory)
    from tfmmrank.atomic import replace_directory
    from tfmmrank.data.demo_shop import make_demo_shop

    with replace_directory(directory) as aside:
        make_demo_shop(aside, seed=seed, items=items, queries=queries)
        (aside / MARKER).touch()
    recipe = directory / "shop.yaml"
    output.result(
        {"recipe": str(recipe), "items": items, "queries": queries, "seed": seed},
        f"{recipe}: {items:,} items, {queries:,} queries. Next: tfmmrank prepare {recipe} DATA",
    )


def _refuse_others(directory: Path) -> None:
    """Refuses a folder that holds anything but a shop that this command made."""
    found = {path.name for path in directory.iterdir()} if directory.exists() else set()
    others = sorted(found - _MADE if MARKER in found else found)
    if others:
        raise ValueError(
            f'{directory}: holds "{others[0]}", which is no part of an earlier demo shop; choose another folder'
        )
