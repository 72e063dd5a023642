"""``tfmmrank rank``. Needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tfmmrank.cli.connection import Connection, with_connection
from tfmmrank.cli.output import Output, with_output


@click.command("rank")
@click.argument("query")
@with_connection
@click.option("--items", default=None, metavar="A,B,C", help="Candidates: item ids, each asked once.")
@click.option(
    "--items-file", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="Candidates: a text file with one item id a line, each asked once; - is standard input.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path), default=None, envvar="TFMMRANK_DATASET", show_envvar=True,
    help="A prepared dataset: candidates are the catalogue's best by BM25, unless given; titles are shown.",
)  # fmt: skip
@click.option("--candidates", default=100, show_default=True, type=click.IntRange(1), help="How many from BM25.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="How many to print.")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="Another query column. Repeatable.")
@with_output
def command(
    output: Output,
    query: str,
    connection: Connection,
    items: str | None,
    items_file: Path | None,
    data: Path | None,
    candidates: int,
    top: int,
    context: Sequence[str],
) -> None:
    """Rank items for QUERY: ask a running server, print the best with their scores."""
    if items is not None and items_file is not None:
        raise click.UsageError("--items and --items-file exclude each other")
    if items is None and items_file is None and data is None:
        raise click.UsageError("which items? Give --items, --items-file, or --data to take candidates from BM25")
    pairs = [_pair(text) for text in context]

    prepared = _open(data)
    ids = _ids(items, items_file)
    if ids is None:
        ids = _candidates(prepared, query, candidates)
    with connection.client() as client:
        if not query.strip() and "query" in client.signature("rank").inputs:
            raise ValueError("the query is empty")
        ranked = client.rank(query, ids, **_typed(client, pairs))
    if len(ranked) and not ranked.known.any():
        click.echo("tfmmrank: warning: the model knows none of these items, so their order says nothing", err=True)
    titles = _titles(prepared, ranked.item_ids[:top])
    found = [
        {"item_id": item.item_id, "score": item.score, "known": item.known, **({"title": title} if titles else {})}
        for item, title in zip(list(ranked)[:top], titles or [""] * top, strict=False)
    ]
    output.result({"query": query, "candidates": len(ids), "items": found}, _lines(found, len(ids)))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f'--context is "{text}"; expected NAME=VALUE')
    return name, value


def _typed(client: Any, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Context values as the model's columns take them; the client refuses columns that the model does not read."""
    if not pairs:
        return {}
    inputs = client.signature("rank").inputs
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in inputs and inputs[name].dtype == "float":
            try:
                values[name] = float(text)
            except ValueError as error:
                raise ValueError(f'--context {name}: "{text}" is no number, and the model reads one') from error
        else:
            values[name] = text
    return values


def _open(data: Path | None) -> Any:
    if data is None:
        return None
    from tfmmrank.data import Prepared

    prepared = Prepared.open(data)
    if not len(prepared.catalogue):
        raise ValueError(f"{data}: the dataset has no catalogue, so there are no items to rank by id")
    return prepared


def _ids(items: str | None, items_file: Path | None) -> list[str] | None:
    """The ids given, in order, each once."""
    if items is not None:
        found = items.split(",")
    elif items_file is not None:
        with click.open_file(str(items_file), encoding="utf-8") as file:
            found = file.read().splitlines()
    else:
        return None
    ids = list(dict.fromkeys(name.strip() for name in found if name.strip()))
    if not ids:
        raise ValueError(f"{items_file or '--items'}: holds no item id")
    return ids


def _candidates(data: Any, query: str, count: int) -> list[str]:
    if not query.strip():
        raise ValueError("the query is empty")
    from tfmmrank.evaluation.bm25 import BM25

    rows, _ = BM25().fit(data).top(query, count)
    return [str(data.catalogue.ids[row]) for row in rows]


def _titles(data: Any, ids: Sequence[str]) -> list[str]:
    """The first text column of each item; empty without a dataset or for an unknown id."""
    texts = [name for name, kind in data.item_columns.items() if kind == "text"] if data is not None else []
    if not texts or not ids:
        return []
    rows = data.catalogue.row_of(ids)
    known = data.catalogue.rows(rows[rows >= 0], columns=texts[:1])[texts[0]]
    found = iter(known)
    return [next(found).decode("utf-8") if row >= 0 else "" for row in rows]


def _lines(found: Sequence[dict[str, Any]], candidates: int) -> str:
    if not candidates:
        return (
            "no item of the catalogue has a word of the query, and candidates come from BM25; name some with --items "
            "or --items-file"
        )
    width = max(len(item["item_id"]) for item in found)
    return "\n".join(
        f"{place:>3}  {item['item_id']:<{width}}  {_score(item)}  {item.get('title', '')}".rstrip()
        for place, item in enumerate(found, 1)
    )


def _score(item: dict[str, Any]) -> str:
    return f"{item['score']:>9.4f}" if item["known"] else f"{'unknown':>9}"
