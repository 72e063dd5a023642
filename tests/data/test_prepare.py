"""From a shop's tables to catalogue and lists."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from tfmmrank.data import DataError, Prepared, prepare, prepared
from tfmmrank.data.workbench import Workbench


def run(shop, **data):
    return prepare(shop.recipe(**data), shop.folder / "out", progress=False)


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_main_path(shop, form):
    shop.forms = dict.fromkeys(shop.forms, form)
    data = run(shop)
    lists = data.lists("train")
    assert list(lists.query_ids) == ["q1", "q2"]
    assert list(lists.queries["query"]) == [b"red shirt", "蓝色".encode()]
    assert list(lists.offsets) == [0, 3, 5]
    assert [data.catalogue.ids[row] for row in lists.item_rows] == ["i1", "i4", "i2", "i2", "i1"]  # as in the table
    np.testing.assert_array_equal(lists.labels, np.float32([3, 1, 0, 3, 0]))
    np.testing.assert_array_equal(lists.weights, np.ones(5, np.float32))
    assert data.meta["splits"] == {
        "train": {"lists": 2, "rows": 5, "max_list_size": 3},
        "valid": {"lists": 1, "rows": 2, "max_list_size": 2},
        "test": {"lists": 1, "rows": 2, "max_list_size": 2},
    }
    assert data.splits == ["train", "valid", "test"]
    assert data.meta["report"]["skipped"] == {}
    assert data.meta["report"]["read"] == {"items": 4, "queries": 4, "label rows": 9}


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_catalogue_holds_raw_values_verbatim(shop, form):
    shop.forms = dict.fromkeys(shop.forms, form)
    catalogue = run(shop).catalogue
    assert len(catalogue) == 4
    values = catalogue.rows([3, 1, 2, 1])
    assert list(values["title"]) == [
        b'a "quoted", long\nname',
        "蓝色 衬衫".encode(),
        b"green mug",
        "蓝色 衬衫".encode(),
    ]
    assert list(values["brand"]) == [b"Acme", b"Bolt", b"", b"Bolt"]
    assert values["price"].dtype == np.float32
    np.testing.assert_array_equal(values["price"], np.float32([7, 20, np.nan, 20]))
    png, jpeg = (shop.folder / "i1.png").read_bytes(), (shop.folder / "i2.jpg").read_bytes()
    assert list(values["image"]) == [png, jpeg, b"", jpeg]


@pytest.mark.parametrize("chunk_rows", [1, 2, 1000])
def test_the_size_of_a_chunk_changes_nothing(shop, chunk_rows):
    whole = run(shop, chunk_rows=3)
    expected = {split: whole.lists(split) for split in whole.splits}
    items = whole.catalogue.rows(range(4))
    data = run(shop, chunk_rows=chunk_rows)
    for split, lists in expected.items():
        other = data.lists(split)
        for name in ("query_ids", "offsets", "item_rows", "labels", "weights"):
            np.testing.assert_array_equal(getattr(lists, name), getattr(other, name))
    for name, values in data.catalogue.rows(range(4)).items():
        np.testing.assert_array_equal(values, items[name])


def test_catalogue_lookups(shop):
    catalogue = run(shop).catalogue
    assert list(catalogue.ids) == ["i1", "i2", "i3", "i4"]
    rows = catalogue.row_of(["i3", "nobody", "i1"])
    assert rows.dtype == np.int32
    assert list(rows) == [2, -1, 0]
    with pytest.raises(IndexError, match=r"item rows must be in 0\.\.3"):
        catalogue.rows([0, 4])
    assert {name: len(values) for name, values in catalogue.rows([]).items()} == dict.fromkeys(catalogue.columns, 0)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_catalogue_in_batches(shop, size):
    catalogue = run(shop).catalogue
    batches = list(catalogue.batches(size, columns=["price", "title"]))
    assert all(set(batch) == {"price", "title"} for batch in batches)
    assert [t for batch in batches for t in batch["title"]] == list(catalogue.rows(range(4))["title"])
    assert max(len(batch["title"]) for batch in batches) <= size


def test_the_catalogue_is_an_arrow_file_that_others_read(shop):
    data = run(shop)
    table = pa.ipc.open_file(data.path / "items" / "catalogue.arrow").read_all()
    assert table.column("item_id").to_pylist() == ["i1", "i2", "i3", "i4"]
    assert table.schema.names == ["item_id", "title", "image", "price", "brand"]


def test_many_items_stand_in_several_batches(shop):
    shop.items += [
        {"item_id": f"n{i}", "title": f"item {i}", "image": "", "price": i, "brand": ""} for i in range(3000)
    ]
    catalogue = run(shop).catalogue
    wanted = np.random.default_rng(0).integers(4, 3004, 500)
    values = catalogue.rows(wanted)
    assert list(values["title"]) == [f"item {row - 4}".encode() for row in wanted]
    np.testing.assert_array_equal(values["price"], (wanted - 4).astype(np.float32))


def test_tables_may_come_in_several_files(shop):
    recipe = shop.recipe(labels={"kind": "judgements", "table": ["judgements.csv", "more.csv"]})
    (shop.folder / "more.csv").write_text("query_id,item_id,grade\nq3,i1,2\n")
    lists = prepare(recipe, shop.folder / "out", progress=False).lists("valid")
    np.testing.assert_array_equal(lists.labels, np.float32([2, 0, 2]))


def test_weights_and_query_context(shop):
    for number, row in enumerate(shop.judgements):
        row["weight"] = None if number == 0 else number / 2
    for row, (hour, country) in zip(shop.queries, [(9, "de"), (None, "cn"), (1, ""), (2, "us")], strict=True):
        row.update(hour=hour, country=country)
    shop.query_columns.update(numeric=["hour"], categorical=["country"])
    shop.labels = {"weight": "weight"}
    lists = run(shop).lists("train")
    np.testing.assert_array_equal(lists.weights, np.float32([0.5, 1.0, 1.5, 1.0, 2.0]))  # a missing weight is 1
    np.testing.assert_array_equal(lists.queries["hour"], np.float32([9, np.nan]))
    assert list(lists.queries["country"]) == [b"de", b"cn"]


def test_numeric_ids_agree_across_formats(shop):
    for row in shop.items + shop.judgements:
        row["item_id"] = int(row["item_id"][1:])
    shop.forms = {"items": "parquet", "queries": "csv", "judgements": "csv"}
    assert list(run(shop).catalogue.ids) == ["1", "2", "3", "4"]


def test_column_names_that_sql_would_stumble_over(shop):
    for row in shop.queries:
        row['select "x"'] = 1.0
    shop.query_columns["numeric"] = ['select "x"']
    assert list(run(shop).lists("train").queries['select "x"']) == [1.0, 1.0]


def test_query_columns_may_be_called_what_they_like(shop):
    names = ["ts", "row", "file", "norm", "q_row", "split ", "City", "city", "query_key", "column_0"]
    for place, row in enumerate(shop.queries):
        row.update({name: 10 * place + at for at, name in enumerate(names)})
    shop.query_columns["numeric"] = names
    queries = run(shop).lists("train").queries
    assert list(queries["query"]) == [b"red shirt", "蓝色".encode()]
    assert {name: list(queries[name]) for name in names} == {name: [at, 10 + at] for at, name in enumerate(names)}


def test_read_counts_rows_and_labels_of_what_was_left_out_say_so(shop):
    shop.items[0]["price"] = "cheap"
    shop.queries[1]["query_id"] = "q1"
    report = run(shop, on_bad_row="skip").meta["report"]
    assert (report["read"]["queries"], report["read"]["label rows"]) == (4, 9)
    assert report["skipped"] == {
        "not a finite number": 1, "duplicate query id": 1, "label for an unknown query": 1,
        "label for an unknown item": 2,
    }  # fmt: skip
    message = 'item "i1" is not in the items table, or was left out of it; expected an id from there'
    assert message in report["examples"]["label for an unknown item"]


def test_many_bad_rows_are_counted_without_being_held(shop, monkeypatch):
    most = []
    rows = Workbench.rows

    def counted(self, query, chunk=None):
        found = rows(self, query, chunk)
        most.append(len(found))
        return found

    shop.judgements += shop.judgements * 50
    shop.queries += [{"query_id": "q1", "query": "again", "split": "train"}] * 40
    shop.queries += [{"query_id": f"n{i}", "query": f"nobody judged {i}", "split": "train"} for i in range(30)]
    monkeypatch.setattr(Workbench, "rows", counted)
    report = run(shop, on_bad_row="skip").meta["report"]
    assert report["skipped"] == {"label given twice": 450, "duplicate query id": 40, "empty list": 30}
    assert "queries.csv: row 6: " in report["examples"]["duplicate query id"]
    assert "judgements.csv: row 11: " in report["examples"]["label given twice"]
    assert "queries.csv: row 46: " in report["examples"]["empty list"]
    assert max(most) <= 4  # one a query that is written


def test_image_root(shop):
    (shop.folder / "pictures").mkdir()
    (shop.folder / "i1.png").rename(shop.folder / "pictures" / "i1.png")
    shop.item_columns["image_root"] = "pictures"
    report = run(shop).meta["report"]
    assert report["noted"]["picture file missing"] == 1  # i2.jpg stayed behind


def test_preparing_again_replaces_the_dataset_and_keeps_nothing_of_it(shop):
    (run(shop).path / "features").mkdir()
    shop.items = shop.items[:2]
    shop.judgements = [row for row in shop.judgements if row["item_id"] in ("i1", "i2")]
    data = run(shop, on_bad_row="skip")
    assert len(data.catalogue) == 2
    assert not (data.path / "features").exists()
    assert [p.name for p in shop.folder.iterdir() if p.name.startswith(".")] == []


def test_a_folder_that_is_no_dataset_is_not_replaced(shop):
    with pytest.raises(DataError, match="exists and is no prepared dataset"):
        prepare(shop.recipe(), shop.folder, progress=False)
    with pytest.raises(DataError, match="is a file"):
        prepare(shop.recipe(), shop.folder / "items.csv", progress=False)


@pytest.mark.parametrize("content", ['{"name": "my web page"}', "[]", "", "no JSON"])
def test_a_folder_with_a_meta_json_of_another_kind_is_not_replaced(shop, content):
    (shop.folder / "page").mkdir()
    (shop.folder / "page" / "meta.json").write_text(content)
    with pytest.raises(DataError, match="page: exists and is no prepared dataset"):
        prepare(shop.recipe(), shop.folder / "page", progress=False)
    assert (shop.folder / "page" / "meta.json").read_text() == content


def test_a_dataset_that_somebody_keeps_other_things_in_is_not_replaced(shop):
    (run(shop).path / "thesis.tex").write_text("the only copy")
    with pytest.raises(DataError, match=r'out: would be replaced, and holds "thesis\.tex"'):
        run(shop)
    assert (shop.folder / "out" / "thesis.tex").read_text() == "the only copy"


def test_failing_leaves_the_old_dataset(shop):
    run(shop)
    before = (shop.folder / "out" / "meta.json").read_bytes()
    shop.judgements[0]["grade"] = -1
    with pytest.raises(DataError):
        run(shop)
    assert (shop.folder / "out" / "meta.json").read_bytes() == before
    assert [p.name for p in shop.folder.iterdir() if p.name.startswith(".")] == []


def test_two_runs_write_the_same_bytes(shop):
    data = run(shop)
    first = {p.relative_to(data.path): p.read_bytes() for p in data.path.rglob("*") if p.is_file()}
    again = run(shop)
    assert again.build != data.build  # and nothing else
    found = {p.relative_to(data.path): p.read_bytes() for p in data.path.rglob("*") if p.is_file()}
    assert {p: content.replace(again.build.encode(), data.build.encode()) for p, content in found.items()} == first


def test_a_dataset_that_was_prepared_again_is_not_mixed_with_the_old_one(shop, monkeypatch):
    old = run(shop)
    assert len(old.lists("train")) == 2
    shop.items = shop.items[::-1]
    new = run(shop)
    assert len(old.lists("train")) == 2  # read before, of the old catalogue
    with pytest.raises(DataError, match="out: was prepared again meanwhile; open it again"):
        old.lists("test")
    assert len(new.lists("test")) == 1
    catalogue = prepared.Catalogue

    def opened_late(file):
        monkeypatch.setattr(prepared, "Catalogue", catalogue)
        run(shop)
        return catalogue(file)

    monkeypatch.setattr(prepared, "Catalogue", opened_late)
    with pytest.raises(DataError, match="was prepared again meanwhile"):
        Prepared.open(new.path)


def test_opening(shop, tmp_path):
    data = run(shop)
    assert Prepared.open(str(data.path)).meta == json.loads((data.path / "meta.json").read_text("utf-8"))
    with pytest.raises(DataError, match="is no prepared dataset"):
        Prepared.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r'has no split "tset"; did you mean "test"\?'):
        data.lists("tset")
    (data.path / "meta.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="has format 99"):
        Prepared.open(data.path)


def test_damaged_lists_are_found_out(shop):
    data = run(shop)
    shard = data.path / "lists" / "train-00000.tfrecord"
    content = bytearray(shard.read_bytes())
    content[40] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-00000\.tfrecord: record 1 is cut short or damaged"):
        data.lists("train")


def test_preparing_needs_no_tensorflow(shop):
    shop.write_all()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from conftest import Shop; from pathlib import Path\n"
        "from tfmmrank.data import prepare\n"
        "folder = Path(sys.argv[2]); prepare(Shop(folder).recipe(), folder / 'out').lists('train')\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(__import__("pathlib").Path(__file__).parent), str(shop.folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "read: 4 items, 4 queries, 9 label rows" in done.stderr
    assert "noted: 1 × no picture named" in done.stderr


def test_an_image_root_that_is_no_folder(shop):
    shop.item_columns["image_root"] = "nowhere"
    with pytest.raises(DataError, match=r"data\.items\.image_root: .*nowhere is no folder"):
        run(shop)


def test_a_warning_when_no_item_has_a_picture(shop):
    (shop.folder / "pictures").mkdir()
    shop.item_columns["image_root"] = "pictures"
    with pytest.warns(
        UserWarning, match=r'none of the \d items has a picture in column "image" \(picture file missing, such as '
    ):
        run(shop)
