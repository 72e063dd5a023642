"""``tfmmrank demo-shop``."""

from __future__ import annotations

from pathlib import Path

import click

from tfmmrank.cli.output import Output, with_output


@click.command("demo-shop")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True, help="One seed gives the same shop.")
@click.option("--items", default=3000, show_default=True, type=click.IntRange(100), help="Number of items.")
@click.option("--queries", default=800, show_default=True, type=click.IntRange(10), help="Number of queries.")
@with_output
def command(output: Output, directory: Path, seed: int, items: int, queries: int) -> None:
    """Write a made-up shop into DIRECTORY: tables, drawn pictures, a behaviour log, and the recipe shop.yaml.

    Some of what a query asks for can only be read (in English or Chinese), some only be seen in the picture, some only
    be known from past behaviour; the true relevance is known.
    """
    from tfmmrank.data.demo_shop import make_demo_shop

    recipe = make_demo_shop(directory, seed=seed, items=items, queries=queries)
    output.result(
        {"recipe": str(recipe), "items": items, "queries": queries, "seed": seed},
        f"{recipe}: {items:,} items, {queries:,} queries. Next: tfmmrank prepare {recipe} DATA",
    )
