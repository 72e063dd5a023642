"""Which lists train, which validate, which test; and that no query text stands on two sides."""

from __future__ import annotations

import hashlib

from tfmmrank.data.errors import DataError, Report
from tfmmrank.data.workbench import Workbench
from tfmmrank.schema import Split

SPLITS = ("train", "valid", "test")

_ORDER = "CASE split WHEN 'train' THEN 0 WHEN 'valid' THEN 1 ELSE 2 END"


def split_by_text(text: str, split: Split) -> str:
    """The split of a query by a hash of its normalised text: the same text always falls on the same side."""
    digest = hashlib.sha256(f"{split.seed}:{text}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < split.test:
        return "test"
    return "valid" if place < split.test + split.valid else "train"


def split_by_time(bench: Workbench, split: Split) -> None:
    """Parts the table ``queries`` by its column ``ts``: the latest share tests, the one before it validates.

    A query tests when more than 1 - ``test`` of all queries are as early as it or earlier, itself included; so queries
    of one moment stay together, on the later side of a cut that falls among them.
    """
    test_from = round(1 - split.test, 9)
    valid_from = round(1 - split.test - split.valid, 9)
    places = "SELECT q_row, round(cume_dist() OVER (ORDER BY ts), 9) AS place FROM queries"
    split_of = f"CASE WHEN place > {test_from} THEN 'test' WHEN place > {valid_from} THEN 'valid' ELSE 'train' END"
    bench.replace(
        "queries", f"SELECT q.* REPLACE ({split_of} AS split) FROM queries q JOIN ({places}) AS p ON q.q_row = p.q_row"
    )


def leak_message(where: str, text: str, one: tuple[str, str], other: tuple[str, str]) -> str:
    """What is said of a query text in two splits; ``one`` and ``other`` are (query id, split)."""
    return (
        f'{where}: query text "{text}" is in split {one[1]} as query "{one[0]}" and in split {other[1]} as query '
        f'"{other[0]}"; expected one side only, or what was trained on would be tested (split.by: query parts by text)'
    )


def refuse_leaks(bench: Workbench, split: Split, report: Report) -> None:
    """Refuses one normalised text on two sides, in the table ``queries``.

    A split by time meets recurring queries as a matter of course: with ``on_bad_row: skip`` the later split's are left
    out. A split by column is the shop's own statement, and is refused either way.

    Raises:
        DataError: naming the text, the queries and the splits.
    """
    texts = (
        f"SELECT q_row, query_id, file, row, split, norm, first_value(query_id) OVER w AS first_query, "
        f"first_value(split) OVER w AS first_split FROM queries WHERE norm <> '' "
        f"WINDOW w AS (PARTITION BY norm ORDER BY {_ORDER}, q_row)"
    )
    leaks = f"SELECT * FROM ({texts}) WHERE split <> first_split ORDER BY q_row"
    found, count = bench.first(leaks)
    if not count:
        return
    _, query, file, row, side, norm, first_query, first_side = found
    message = leak_message(f"{file}: row {row}", norm, (query, side), (first_query, first_side))
    if split.by != "time":
        raise DataError(message)
    report.bad_row("query text in two splits", message, count)
    bench.remove("queries", "q_row", f"SELECT q_row FROM ({leaks})")
