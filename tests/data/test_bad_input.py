"""Everything that may be wrong with a shop's tables: one clear error, or left out and counted by cause."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from tfmmrank.data import DataError, prepare


def run(shop, **data):
    return prepare(shop.recipe(**data), shop.folder / "out", progress=False)


def change(table: str, row: int, **values):
    def spoil(shop):
        getattr(shop, table)[row].update(values)

    return spoil


def add(table: str, **values):
    def spoil(shop):
        getattr(shop, table).append(values)

    return spoil


def remove_labels_of(query: str):
    def spoil(shop):
        shop.judgements = [row for row in shop.judgements if row["query_id"] != query]

    return spoil


ITEM = {"title": "x", "image": "", "price": 1, "brand": ""}

# name: what to spoil, the cause that is counted, the rows of it, the error
CASES = {
    "duplicate item id": (
        add("items", item_id="i2", **ITEM),
        {"duplicate item id": 1},
        'items.csv: row 6: column "item_id": "i2" already stands in row 3; expected ids that are unique',
    ),
    "missing item id": (
        add("items", item_id=None, **ITEM),
        {"missing id": 1},
        'items.csv: row 6: column "item_id": is empty; expected an id',
    ),
    "duplicate query id": (
        add("queries", query_id="q1", query="other", split="train"),
        {"duplicate query id": 1},
        'queries.csv: row 6: column "query_id": "q1" already stands in row 2; expected ids that are unique',
    ),
    "label given twice": (
        add("judgements", query_id="q1", item_id="i4", grade=3),
        {"label given twice": 1},
        'judgements.csv: row 11: query "q1" and item "i4" are judged twice; expected one row a pair',
    ),
    "label for an unknown item": (
        add("judgements", query_id="q1", item_id="i9", grade=3),
        {"label for an unknown item": 1},
        'judgements.csv: row 11: column "item_id": item "i9" is not in the items table; expected an id from there',
    ),
    "label for an unknown query": (
        add("judgements", query_id="q9", item_id="i1", grade=3),
        {"label for an unknown query": 1},
        'judgements.csv: row 11: column "query_id": query "q9" is not in the queries table; expected an id from there',
    ),
    "negative grade": (
        change("judgements", 3, grade=-1),
        {"negative grade": 1},
        "judgements.csv: row 5: column \"grade\": found '-1'; expected at least 0",
    ),
    "missing grade": (
        change("judgements", 3, grade=""),
        {"missing grade": 1},
        'judgements.csv: row 5: column "grade": found nothing; expected a number',
    ),
    "non-finite grade": (
        change("judgements", 3, grade="inf"),
        {"not a finite number": 1},
        "judgements.csv: row 5: column \"grade\": found 'inf'; expected a finite number",
    ),
    "not a finite number": (
        change("items", 2, price="nan"),
        {"not a finite number": 1, "label for an unknown item": 2},
        "items.csv: row 4: column \"price\": found 'nan'; expected a finite number",
    ),
    "empty list": (
        remove_labels_of("q2"),
        {"empty list": 1},
        'queries.csv: row 3: query "q2" has no label; expected at least one',
    ),
    "unknown split": (
        change("queries", 2, split="validation"),
        {"unknown split": 1, "label for an unknown query": 2},
        'queries.csv: row 4: column "split": found "validation"; expected one of train, valid, test',
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fails_with_one_clear_error(shop, name):
    spoil, _, message = CASES[name]
    spoil(shop)
    with pytest.raises(DataError, match=re.escape(message)):
        run(shop)
    assert not (shop.folder / "out").exists()


@pytest.mark.parametrize("name", CASES)
def test_is_skipped_and_counted_by_cause(shop, name):
    spoil, counts, message = CASES[name]
    spoil(shop)
    report = run(shop, on_bad_row="skip").meta["report"]
    assert report["skipped"] == counts
    assert any(message in example for example in report["examples"].values())


@pytest.mark.parametrize("chunk_rows", [1, 2])
def test_repeated_rows_are_found_across_chunks(shop, chunk_rows):
    for name in ("duplicate item id", "duplicate query id", "label given twice"):
        CASES[name][0](shop)
    data = run(shop, on_bad_row="skip", chunk_rows=chunk_rows)
    assert data.meta["report"]["skipped"] == {"duplicate item id": 1, "duplicate query id": 1, "label given twice": 1}
    assert list(data.catalogue.rows([1])["title"]) == ["蓝色 衬衫".encode()]  # the first one stays
    assert list(data.lists("train").labels) == [3, 1, 0, 3, 0]


def test_a_list_that_loses_all_its_labels_is_an_empty_list(shop):
    for row in shop.judgements:
        if row["query_id"] == "q2":
            row["grade"] = "?"
    data = run(shop, on_bad_row="skip")
    assert data.meta["report"]["skipped"] == {"not a finite number": 2, "empty list": 1}
    assert list(data.lists("train").query_ids) == ["q1"]


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_list_with_one_grade_only_is_kept_and_noted(shop, policy):
    shop.judgements[0]["grade"] = 0
    data = run(shop, on_bad_row=policy)
    assert data.meta["report"]["noted"]["list with one grade only"] == 1
    assert list(data.lists("train").query_ids) == ["q1", "q2"]


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_empty_texts_are_kept_as_missing_and_noted(shop, policy):
    shop.items[0]["title"] = ""
    shop.queries[3]["query"] = ""
    data = run(shop, on_bad_row=policy)
    noted = data.meta["report"]["noted"]
    assert (noted["empty text in title"], noted["empty text in query"]) == (1, 1)
    assert data.catalogue.rows([0])["title"][0] == b""
    assert data.lists("test").queries["query"][0] == b""


@pytest.mark.parametrize(
    ("table", "column", "other"),
    [("items", "title", "tittle"), ("queries", "query", "querry"), ("judgements", "grade", "grades")],
)
def test_misnamed_column(shop, table, column, other):
    for row in getattr(shop, table):
        row[other] = row.pop(column)
    for policy in ("fail", "skip"):  # no row can be right then, so that skipping is no way out
        message = rf'{table}\.csv: column "{column}" is missing; did you mean "{other}"\?'
        with pytest.raises(DataError, match=message):
            run(shop, on_bad_row=policy)


def test_non_utf8_text(shop):
    recipe = shop.recipe()
    file = shop.folder / "items.csv"
    file.write_bytes(file.read_bytes().replace(b"green mug", b"gr\xfcn mug"))
    with pytest.raises(DataError, match=r'items\.csv: row 4: column "title": b\'gr\\xfcn mug\' is not UTF-8'):
        prepare(recipe, shop.folder / "out", progress=False)
    recipe = shop.recipe(write=False, on_bad_row="skip")
    data = prepare(recipe, shop.folder / "out", progress=False)
    assert data.meta["report"]["skipped"] == {"non-UTF-8 text": 1, "label for an unknown item": 2}


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_broken_pictures_cost_the_picture_and_not_the_item(shop, policy):
    good = (shop.folder / "i2.jpg").read_bytes()
    Image.new("1", (10_000, 10_000)).save(shop.folder / "huge.png")  # 100 megapixels
    broken = {"zero.jpg": b"", "text.jpg": b"<html>", "cut.jpg": good[: len(good) // 2]}
    for name, content in broken.items():
        (shop.folder / name).write_bytes(content)
    for name in [*broken, "huge.png", "none.jpg"]:
        shop.items.append({"item_id": name, "title": name, "image": name, "price": 1, "brand": ""})
    Image.new("RGB", (8, 8)).save(shop.folder / "old.bmp")
    shop.items.append({"item_id": "bmp", "title": "bmp", "image": "old.bmp", "price": 1, "brand": ""})
    data = run(shop, on_bad_row=policy)
    assert data.meta["report"]["noted"] == {
        "no picture named": 1,
        "picture of zero bytes": 1,
        "not a picture": 1,
        "picture truncated or broken": 1,
        "picture of too many pixels": 1,
        "picture file missing": 1,
        "picture converted: format BMP": 1,
    }
    assert data.meta["report"]["examples"]["picture file missing"].endswith("none.jpg")
    pictures = data.catalogue.rows(range(4, 10))["image"]
    assert list(pictures[:5]) == [b""] * 5
    assert pictures[5].startswith(b"\x89PNG")


def test_nothing_left(shop):
    for row in shop.judgements:
        row["grade"] = -1
    with pytest.raises(DataError, match=r"no list is left to write; left out: .*'negative grade': 9"):
        run(shop, on_bad_row="skip")


def test_empty_texts_of_rows_left_out_are_not_noted(shop):
    shop.items.append({**shop.items[0], "title": ""})
    report = run(shop, on_bad_row="skip").meta["report"]
    assert report["skipped"] == {"duplicate item id": 1}
    assert "empty text in title" not in report["noted"]
    assert report["read"]["items"] == 5  # as many as the table has, whatever becomes of them


def test_a_row_with_other_columns_only_is_no_blank_row(shop):
    recipe = shop.recipe()
    file = shop.folder / "judgements.csv"
    lines = [f"{line},{'note' if number == 0 else 'x'}" for number, line in enumerate(file.read_text().splitlines())]
    file.write_text("\n".join([*lines, ",,,y", ",,,", ""]) + "\n")
    with pytest.raises(DataError, match=r'judgements\.csv: row 11: column "item_id": is empty; expected an id'):
        prepare(recipe, shop.folder / "out", progress=False)


def test_malformed_rows_at_the_end_are_counted(shop):
    recipe = shop.recipe(on_bad_row="skip")
    with open(shop.folder / "judgements.csv", "a") as file:
        file.write("q1\nq2\n")
    report = prepare(recipe, shop.folder / "out", progress=False).meta["report"]
    assert report["skipped"] == {"malformed row": 2}


def test_pictures_inside_the_table(shop):
    png, jpeg = ((shop.folder / name).read_bytes() for name in ("i1.png", "i2.jpg"))
    shop.forms["items"] = "parquet"
    for row, content in zip(shop.items, [png, jpeg, None, b"<html>"], strict=True):
        row["image"] = content
    data = run(shop)
    assert list(data.catalogue.rows(range(4))["image"]) == [png, jpeg, b"", b""]
    noted = data.meta["report"]["noted"]
    assert (noted["no picture named"], noted["not a picture"]) == (1, 1)
    assert data.meta["report"]["examples"]["not a picture"].endswith('items.parquet: row 4: column "image": 6 bytes')
