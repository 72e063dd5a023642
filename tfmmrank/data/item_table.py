"""The items table to the catalogue."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from tfmmrank.data import columns
from tfmmrank.data.catalogue import ID, arrow_schema
from tfmmrank.data.errors import DataError, Report
from tfmmrank.data.pictures import PictureReader, check_picture
from tfmmrank.data.tables import Chunk, read_chunks
from tfmmrank.data.workbench import Workbench
from tfmmrank.schema import DataConfig, Items, Recipe

_TIME = "\0time"  # no column of a shop has such a name
_BATCH_ROWS = 1024  # of the catalogue: few enough to read one row cheaply
_BATCH_BYTES = 16 * 2**20  # pictures in memory together


def load_items(recipe: Recipe, bench: Workbench, file: Path, report: Report, progress: bool) -> int:
    """Writes the catalogue without behaviour, and the table ``items(item_id, item_row, ts, file, row)``.

    Args:
        recipe: the recipe; ``recipe.data.items`` is set.
        bench: where the table goes.
        file: the Arrow file to write.
        report: takes bad rows. A broken picture is noted, and its item kept without one, even when failing on bad rows:
            among many thousand pictures some always are.
        progress: whether to show a progress bar.

    Returns:
        Number of items.
    """
    data, items = recipe.data, recipe.data.items
    assert items is not None
    files = [recipe.path(path) for path in ([items.table] if isinstance(items.table, Path) else items.table)]
    wanted = [items.id, *data.item_columns] + ([items.timestamp] if items.timestamp else [])
    schema = arrow_schema(data.item_columns, [])
    root = recipe.path(items.image_root) if items.image_root else None
    if root is not None and not root.is_dir():
        raise DataError(f"data.items.image_root: {root} is no folder; expected the one that holds the pictures")
    pictures = PictureReader(data.max_image_pixels)
    bench.con.execute("CREATE TABLE items (item_id VARCHAR, item_row INTEGER, ts DOUBLE, file VARCHAR, row BIGINT)")
    count = pictured = 0
    bar = tqdm(desc="items", unit="row", disable=not progress, leave=False)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for chunk in read_chunks(files, wanted, data.chunk_rows, report):
            good = np.ones(len(chunk), bool)
            values = _values(chunk, data, items, report, good)
            _drop_repeated(bench, chunk, values[ID], items.id, report, good)
            for name in items.texts:
                columns.note_empty(chunk, name, values[name], report, good)
            report.read["items"] += len(chunk)
            picked = np.flatnonzero(good)
            _register(bench, chunk, values, picked, count)
            for part in np.array_split(picked, max(1, -(-len(picked) // _BATCH_ROWS))):
                folder = root if root is not None else chunk.file.parent
                for batch in _batches(chunk, values, part, folder, items.image, pictures, report, schema):
                    writer.write_batch(batch)
                    if items.image is not None:
                        pictured += len(batch) - batch.column(items.image).null_count
                bar.update(len(part))
            count += len(picked)
    bar.close()
    if items.image is not None and count and not pictured:
        causes = [cause for cause in report.noted if "picture" in cause]
        example = f"{causes[0]}, such as {report.examples[causes[0]]}"
        warnings.warn(f'none of the {count:,} items has a picture in column "{items.image}" ({example})', stacklevel=2)
    return count


def _values(chunk: Chunk, data: DataConfig, items: Items, report: Report, good: np.ndarray) -> dict[str, np.ndarray]:
    """Ids and raw columns but the picture, validated."""
    values = {ID: columns.ids(chunk, items.id, report, good)}
    for name, kind in data.item_columns.items():
        if kind == "numeric":
            values[name] = columns.numbers(chunk, name, report, good)
        elif kind != "image":
            values[name] = columns.texts(chunk, name, report, good)
    if items.timestamp:
        values[_TIME] = columns.times(chunk, items.timestamp, report, good)
    return values


def _drop_repeated(
    bench: Workbench, chunk: Chunk, ids: np.ndarray, column: str, report: Report, good: np.ndarray
) -> None:
    """Reports ids that stood before, in this chunk or an earlier one."""
    places = np.flatnonzero(good)
    earlier = {
        place: f"row {row} of {Path(file).name}"
        for place, file, row in bench.rows(
            "SELECT place, file, row FROM chunk JOIN items USING (item_id)", {"item_id": ids[good], "place": places}
        )
    }
    here: dict[str, int] = {}
    for place in places.tolist():
        first = here.setdefault(ids[place], place)
        if first != place:
            earlier[place] = f"row {chunk.rows[first]}"
    for place, where in sorted(earlier.items()):
        message = (
            f'{chunk.where(place, column)}: "{ids[place]}" already stands in {where}; expected ids that are unique'
        )
        report.bad_row("duplicate item id", message)
        good[place] = False


def _register(
    bench: Workbench, chunk: Chunk, values: dict[str, np.ndarray], picked: np.ndarray, first_row: int
) -> None:
    """Adds a chunk's items to the table ``items``."""
    bench.append(
        "items",
        {
            "item_id": values[ID][picked],
            "item_row": np.arange(first_row, first_row + len(picked), dtype=np.int32),
            "ts": values[_TIME][picked] if _TIME in values else np.full(len(picked), np.nan),
            "file": np.full(len(picked), str(chunk.file), object),
            "row": chunk.rows[picked],
        },
    )


def _batches(
    chunk: Chunk,
    values: dict[str, np.ndarray],
    part: np.ndarray,
    folder: Path,
    image: str | None,
    pictures: PictureReader,
    report: Report,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """Some rows as record batches, cut where their pictures grow large."""
    if image is None:
        yield _record_batch(values, part, None, schema)
        return
    start, size = 0, 0
    contents: list[bytes] = []
    for at, i in enumerate(part.tolist()):
        contents.append(_picture(chunk, i, image, folder, pictures, report))
        size += len(contents[-1])
        if size >= _BATCH_BYTES or at + 1 == len(part):
            yield _record_batch(values, part[start : at + 1], contents, schema)
            start, size, contents = at + 1, 0, []


def _picture(chunk: Chunk, i: int, column: str, folder: Path, pictures: PictureReader, report: Report) -> bytes:
    """One item's picture as bytes; what is wrong with it is noted."""
    value = chunk.columns[column][i]
    if value is None or value == "":
        report.note("no picture named", f"{chunk.where(i, column)}: is empty")
        return b""
    if isinstance(value, bytes):  # the picture itself
        picture, shown = check_picture(value, pictures.max_pixels), f"{len(value)} bytes"
    else:
        path = folder / str(value)
        picture, shown = pictures(path), str(path)
    for cause in (picture.cause, picture.converted):
        if cause:
            report.note(cause, f"{chunk.where(i, column)}: {shown}")
    return picture.content


def _record_batch(
    values: dict[str, np.ndarray], rows: np.ndarray, pictures: list[bytes] | None, schema: pa.Schema
) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        if field.name not in values:
            arrays.append(pa.array([content or None for content in pictures or []], pa.binary()))
        elif pa.types.is_floating(field.type):
            arrays.append(pa.array(values[field.name][rows], field.type, from_pandas=True))
        else:
            texts = values[field.name][rows].tolist()
            arrays.append(pa.array([text or None for text in texts], pa.string()).cast(field.type))
    return pa.record_batch(arrays, schema=schema)


def add_snapshot(raw: Path, file: Path, data: DataConfig, bench: Workbench, features: list[str]) -> None:
    """Copies the catalogue, adding each item's current behaviour from the table ``item_behaviour``."""
    schema = arrow_schema(data.item_columns, features)
    names = ", ".join(f"CAST({name} AS FLOAT) AS {name}" for name in features)
    query = f"SELECT {names} FROM items LEFT JOIN item_behaviour USING (item_row) ORDER BY item_row"
    take = _in_order(bench.stream(query, _BATCH_ROWS))
    with pa.memory_map(str(raw)) as source, pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            wanted = take(len(batch)).combine_chunks()
            snapshot = [pa.concat_arrays(wanted.column(name).chunks) for name in features]
            writer.write_batch(pa.record_batch([*batch.columns, *snapshot], schema=schema))


def _in_order(reader: Any) -> Any:
    """A function that takes the next n rows off a stream of record batches."""
    batches: Iterator[pa.RecordBatch] = iter(reader)
    waiting: list[pa.RecordBatch] = []

    def take(count: int) -> pa.Table:
        while sum(len(batch) for batch in waiting) < count:
            waiting.append(next(batches))
        table = pa.Table.from_batches(waiting)
        waiting[:] = table.slice(count).to_batches()
        return table.slice(0, count)

    return take
