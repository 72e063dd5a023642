"""The out-of-core engine under ``prepare``: a DuckDB database on disk, with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

# Twice the tables must not take twice the memory: what is over this goes to disk. Small, because it is no slower.
MEMORY_LIMIT = "128MB"
BEHAVIOUR_MEMORY_LIMIT = "512MB"  # its window functions and time joins hold more at once


class Workbench:
    """Tables that joins, sorts and groupings may spill.

    Args:
        folder: where the database and what spills go; removed by its owner.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.con = duckdb.connect(str(folder / "work.duckdb"))
        self.limit_memory(MEMORY_LIMIT)
        self.con.execute("SET temp_directory=$folder", {"folder": str(folder / "spill")})
        self.con.execute("SET threads=2")
        self.con.execute("SET allocator_flush_threshold='1MB'")  # what is free goes back to the system at once
        self.con.execute("SET allocator_bulk_deallocation_flush_threshold='1MB'")
        self.con.execute("SET preserve_insertion_order=false")

    def limit_memory(self, limit: str) -> None:
        """Changes how much DuckDB keeps in memory, such as ``512MB``."""
        self.con.execute(f"SET memory_limit='{limit}'")

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        """Appends arrays to a table's columns of the same names; NaN becomes NULL."""
        names = ", ".join(quoted(name) for name in columns)
        self._with_chunk(f"INSERT INTO {table} ({names}) SELECT {names} FROM chunk", columns)

    def rows(self, query: str, chunk: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """A query's rows, for small results; ``chunk`` is arrays that the query knows as the table ``chunk``."""
        return (self.con.execute(query) if chunk is None else self._with_chunk(query, chunk)).fetchall()

    def first(self, query: str) -> tuple[tuple[Any, ...], int]:
        """A query's first row, empty when there is none, and how many there are; the result may be large."""
        rows = self.rows(f"SELECT * FROM ({query}) LIMIT 1")
        return (rows[0], self.rows(f"SELECT count(*) FROM ({query})")[0][0]) if rows else ((), 0)

    def replace(self, table: str, query: str) -> None:
        """Makes a query's result the table: UPDATE and DELETE hold every row that they change in memory."""
        self.con.execute(f"CREATE TABLE replaced AS {query}")
        self.con.execute(f"DROP TABLE {table}")
        self.con.execute(f"ALTER TABLE replaced RENAME TO {table}")

    def remove(self, table: str, key: str, query: str) -> None:
        """Removes the rows whose ``key`` is in a query's column of that name."""
        self.replace(table, f"SELECT * FROM {table} ANTI JOIN ({query}) AS gone USING ({key})")

    def arrays(self, query: str, chunk: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A query's result as numpy arrays, masked where NULL."""
        return (self.con.execute(query) if chunk is None else self._with_chunk(query, chunk)).fetchnumpy()

    def stream(self, query: str, rows: int) -> Any:
        """A query's result as Arrow record batches of about ``rows`` rows; other queries may run meanwhile."""
        result = self.con.cursor().execute(query)
        return result.to_arrow_reader(rows) if hasattr(result, "to_arrow_reader") else result.fetch_record_batch(rows)

    def close(self) -> None:
        """Closes the database."""
        self.con.close()

    def _with_chunk(self, query: str, columns: Mapping[str, Any]) -> Any:
        table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
        self.con.register("chunk", table)
        return self.con.execute(query)


def quoted(name: str) -> str:
    """A column's name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'
