"""Recipes: what is accepted, and what errors say."""

import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from tfmmrank.schema import BEHAVIOUR_FEATURES, ExampleLists, Judgements, LibSVM, Logs, Recipe, RecipeError

GOOD = {
    "data": {
        "items": {"table": "items.parquet", "texts": ["title"], "image": "image", "numeric": ["price"]},
        "queries": {"table": "queries.csv", "split": "split"},
        "labels": {"kind": "judgements", "table": "judgements.csv"},
    },
    "model": {"towers": {"title": {"kind": "text", "columns": ["title"], "max_tokens": 9}}},
}


LOG = {"kind": "logs", "table": "logs.csv"}


def changed(where: str, value):
    """GOOD with one key set (or, for None, removed)."""
    content = deepcopy(GOOD)
    part = content
    *parents, last = where.split(".")
    for key in parents:
        part = part.setdefault(key, {})
    if value is None:
        del part[last]
    else:
        part[last] = value
    return content


def refuse(content, *words):
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(content, source="shop.yaml")
    for word in ("shop.yaml: ", *words):
        assert word in str(caught.value)


def test_defaults_and_options():
    recipe = Recipe.from_dict(GOOD)
    assert isinstance(recipe.data.labels, Judgements)
    assert recipe.data.on_bad_row == "fail"
    assert recipe.model.towers["title"].side == "item"
    assert recipe.model.towers["title"].options == {"max_tokens": 9}
    assert recipe.train.loss == "softmax_loss"


def test_columns_by_kind():
    content = changed("data.queries.numeric", ["hour"])
    content["data"]["items"]["categorical"] = ["brand"]
    data = Recipe.from_dict(content).data
    assert data.item_columns == {"title": "text", "image": "image", "price": "numeric", "brand": "categorical"}
    assert data.query_columns == {"query": "text", "hour": "numeric"}


def test_a_query_without_text_has_no_query_column():
    content = changed("data.queries.text", "words")
    assert "query" in Recipe.from_dict(content).data.query_columns
    content["data"]["queries"]["text"] = None
    assert Recipe.from_dict(content).data.query_columns == {}


def test_libsvm_needs_no_tables():
    content = {"data": {"labels": {"kind": "libsvm", "files": {"train": ["a.txt"]}}}, "model": GOOD["model"]}
    recipe = Recipe.from_dict(content)
    assert isinstance(recipe.data.labels, LibSVM)
    assert recipe.data.item_columns == {}


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("data.itmes", {"table": "x"}, ["data.itmes", "unknown key", 'did you mean "items"']),
        ("data.items.tabel", "x", ["data.items.tabel", 'did you mean "table"']),
        ("train.epoch", 3, ["train.epoch", 'did you mean "epochs"']),
        ("model", None, ["model", "is missing"]),
        ("data.items.table", None, ["data.items.table", "is missing"]),
        ("data.items", None, ['labels of kind "judgements" need both "items" and "queries"']),
        ("train.epochs", 0, ["train.epochs", "greater than 0", "got 0"]),
        ("train.learning_rate", "fast", ["train.learning_rate", "got 'fast'"]),
        ("train.mixed_precision", "float16", ["train.mixed_precision: expected a valid boolean", "got 'float16'"]),
        ("data.on_bad_row", "ignore", ['data.on_bad_row: found "ignore"; expected one of "fail", "skip"']),
        ("data.labels.kind", "clicks", ['data.labels.kind: found "clicks"; expected one of "judgements", "logs", ']),
        ("data.labels.kind", "judgments", ['found "judgments"; did you mean "judgements"? expected one of ']),
        ("data.labels.kind", None, ['data.labels.kind: is missing; expected one of "judgements", "logs", ']),
        ("data.labels.query", "q", ["data.labels.query: unknown key"]),
        ("data.labels", "judgements", ["data.labels: expected a mapping, got 'judgements'"]),
        ("data.items", "items.csv", ["data.items: expected a mapping with the keys table, id, ", "got 'items.csv'"]),
        ("data.labels.table", 3, ["data.labels.table: expected a path or a list of paths, got 3"]),
        ("data.split.valid", 1.5, ["data.split.valid", "got 1.5"]),
        ("data.split", {"valid": 0.5, "test": 0.6}, ["leave nothing to train on"]),
        ("data.split", {"by": "time"}, ["queries.timestamp must name the column"]),
        ("data.queries.split", None, ["queries.split must name the column"]),
        ("data.items.texts", ["label"], ['items.texts: column name "label" is reserved for the label']),
        ("data.items.categorical", ["item_id"], ['column name "item_id" is reserved for the item\'s id']),
        ("data.queries.categorical", ["query"], ['column name "query" is reserved for the query\'s text']),
        ("data.labels", LOG | {"grades": {"click": float("nan")}}, ["grades.click", "finite number, got nan"]),
        ("data.labels", LOG | {"grades": {"cart": float("inf")}}, ["grades.cart", "finite number, got inf"]),
        ("data.labels", LOG | {"grades": {"click": -1}}, ["grades.click", "greater than or equal to 0, got -1"]),
        ("data.labels", LOG | {"grades": {}}, ["grades", "at least 1 item"]),
        ("data.labels", LOG | {"max_weight": 0.5}, ["max_weight", "greater than or equal to 1, got 0.5"]),
        ("data.labels", LOG | {"user": "user_id"}, ["data.labels.user: unknown key"]),
        ("data.labels", LOG | {"propensity": "p"}, ['propensity is "p", and debias is "none", which ignores it']),
        ("data.behaviour", {"logs": LOG, "prior_strength": float("inf")}, ["prior_strength", "got inf"]),
        ("data.behaviour", {"logs": LOG, "features": []}, ["behaviour.features", "at least 1 item", "got []"]),
        ("data.behaviour", {"logs": LOG, "features": ["past_ctr"] * 2}, ['"past_ctr" stands there twice']),
        ("data.items", {"table": "x", 1: 2}, ["data.items.1: Keys should be strings"]),
        ("data.items.numeric", ["past_clicks"], ['column name "past_clicks" is reserved']),
        ("data.items.categorical", ["price"], ['column "price" is already used by items.numeric']),
        (
            "model.towers.title.side",
            "left",
            ['model.towers.title.side: found "left"; expected one of "query", "item", "slot"'],
        ),
    ],
)
def test_bad_recipes_name_key_value_and_expectation(where, value, words):
    refuse(changed(where, value), *words)


@pytest.mark.parametrize(("key", "says"), [(1, "shop.yaml: 1: is no key"), ("root", "root: unknown key")])
def test_keys_of_the_whole_recipe(key, says):
    with pytest.raises(RecipeError, match=says):
        Recipe.from_dict({**GOOD, key: "x"}, source="shop.yaml")


def test_age_days_is_a_shops_column_until_behaviour_is_used():
    content = changed("data.items.numeric", ["age_days"])
    assert Recipe.from_dict(content).data.item_columns["age_days"] == "numeric"
    content["data"]["behaviour"] = {"logs": LOG}
    refuse(content, 'items.numeric: column name "age_days" is reserved for a behaviour feature')


def test_the_id_may_be_called_what_it_likes():
    assert Recipe.from_dict(changed("data.items.id", "item_id")).data.items.id == "item_id"
    assert Recipe.from_dict(changed("data.items.id", "title")).data.item_columns["title"] == "text"  # id and text both


@pytest.mark.parametrize("kind", ["libsvm", "elwc"])
@pytest.mark.parametrize("part", ["behaviour", "split", "items", "queries"])
def test_lists_with_features_refuse_what_they_would_ignore(kind, part):
    labels = {"kind": kind, "files": {"train": ["a"]}, **({"features": {"a": 1}} if kind == "elwc" else {})}
    parts = {"behaviour": {"logs": LOG}, "split": {"by": "query"}, "items": {"table": "x"}, "queries": {"table": "x"}}
    content = {"data": {"labels": labels}, "model": GOOD["model"]}
    plain = Recipe.from_dict(content)
    assert Recipe.from_dict(plain.model_dump(exclude={"root"}, exclude_none=True)).data == plain.data
    content["data"][part] = parts[part]
    refuse(content, f'labels of kind "{kind}" bring lists', f"remove {part}")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"features": {"label": 1}}, 'features: "label" is the label'),
        ({"features": {"grade": 1}, "label": "grade"}, 'features: "grade" is the label'),
        ({"features": {"confidence": 1}, "weight": "confidence"}, 'features: "confidence" is the weight'),
        ({"features": {"item_row": 1}}, 'features: "item_row" is reserved for the item\'s place'),
    ],
)
def test_features_of_example_lists_are_not_their_labels(options, says):
    labels = {"kind": "elwc", "files": {"train": ["a"]}, **options}
    refuse({"data": {"labels": labels}, "model": GOOD["model"]}, says)


def test_several_errors_are_told_at_once():
    content = changed("train.epochs", 0)
    content["data"]["on_bad_row"] = "x"
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(content, source="shop.yaml")
    assert len(str(caught.value).splitlines()) == 2


def test_behaviour_features_are_checked():
    log = {"table": "logs.csv"}
    content = changed("data.behaviour", {"logs": log, "features": ["past_click"]})
    refuse(content, 'unknown behaviour feature "past_click"', 'did you mean "past_clicks"')
    recipe = Recipe.from_dict(changed("data.behaviour", {"logs": log}))
    assert recipe.data.behaviour.features == list(BEHAVIOUR_FEATURES)


def test_ipw_needs_propensities():
    refuse(
        changed("data.labels", {"kind": "logs", "table": "l.csv", "debias": "ipw"}), "propensity must name the column"
    )
    content = changed("data.labels", {"kind": "logs", "table": "l.csv", "debias": "ipw", "propensity": "p"})
    assert isinstance(Recipe.from_dict(content).data.labels, Logs)


def test_load_and_paths(tmp_path, monkeypatch):
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(GOOD), encoding="utf-8")
    recipe = Recipe.load(file)
    assert recipe.path(recipe.data.items.table) == tmp_path / "items.parquet"
    monkeypatch.setenv("SHOP_TABLES", str(tmp_path / "elsewhere"))
    assert recipe.path(Path("$SHOP_TABLES/a.csv")) == tmp_path / "elsewhere" / "a.csv"
    assert recipe.path(Path("/abs/a.csv")) == Path("/abs/a.csv")


def test_written_and_read_again_it_is_the_same(tmp_path):
    """Also a null where the default is something else; from another folder, the paths still lead to the tables."""
    content = changed("data.queries.text", "words")
    content["data"]["queries"]["text"] = None
    content["model"]["towers"]["title"]["vocabulary"] = None
    content["train"] = {"clip_norm": None, "learning_rate": 1e-5}
    recipe = Recipe.from_dict(content, root=tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    again = Recipe.load(tmp_path / "elsewhere" / "recipe.yaml")
    assert (again.model, again.train) == (recipe.model, recipe.train)
    assert again.data.queries.text is None
    assert again.data.items.table == tmp_path / "items.parquet"
    assert "timestamp" not in yaml.safe_load(recipe.to_yaml())["data"]["items"]  # None says that anyway


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", r"shop\.yaml: line 1, column 6: while parsing a flow sequence: expected ',' or ']'"),
        ("a: 1\n b: 2", r"shop\.yaml: line 2, column 3: mapping values are not allowed here"),
        ("a: \x01", r"shop\.yaml: is not YAML"),
        ("a: 2026-13-45", r"shop\.yaml: is not YAML \(month must be in"),
        ("data:\n  a: 1\n  b: 2\n  a: 3", r'line 4, column 3: key "a" stands there twice, first in line 2; expected'),
        ("- 1", "expected a mapping with data, model and train, found list"),
        ("", "found NoneType"),
    ],
)
def test_files_that_hold_no_recipe(tmp_path, text, words):
    file = tmp_path / "shop.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=words):
        Recipe.load(file)


def test_a_key_that_a_merge_brings_is_no_repeated_key(tmp_path):
    file = tmp_path / "shop.yaml"
    content = yaml.safe_dump(GOOD)
    file.write_text(content + "train:\n  <<: &usual {epochs: 3, seed: 1}\n  epochs: 5\n", encoding="utf-8")
    assert Recipe.load(file).train.epochs == 5


def test_short_forms():
    content = changed("model.towers.title.columns", "title")
    content["model"]["fusion"] = "mean"
    model = Recipe.from_dict(content).model
    assert model.towers["title"].columns == ["title"]
    assert model.fusion.kind == "mean"


TOWERS = {
    "query": {"kind": "text", "side": "query", "columns": ["query"]},
    "title": {"kind": "text", "columns": ["title", "brand"], "share": "query"},
    "image": {"kind": "image", "columns": ["image"]},
    "facts": {"kind": "behaviour", "columns": ["price", "brand"], "categorical": ["brand"]},
    "past": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]},
    "mine": {"kind": "of_my_own", "columns": ["title", "image", "price", "brand"]},
}


def with_towers(**towers):
    """A shop with behaviour features whose towers are fine, some of them replaced."""
    content = changed("data.items.categorical", ["brand"])
    content["data"]["behaviour"] = {"logs": LOG}
    content["model"]["towers"] = {name: {**TOWERS.get(name, {}), **towers.get(name, {})} for name in TOWERS | towers}
    return content


def test_towers_that_fit_the_data():
    assert Recipe.from_dict(with_towers()).wrong_towers() == []


@pytest.mark.parametrize(
    ("tower", "options", "says"),
    [
        (
            "title",
            {"columns": ["titel"]},
            'no item column "titel"; did you mean "title"?; item columns: title, image, ',
        ),
        (
            "past",
            {"columns": ["price"]},
            'slot column "price"; it is a column of side item, and the tower\'s side is slot',
        ),
        (
            "query",
            {"columns": ["query_text"]},
            'no query column "query_text"; did you mean "query"?; query columns: query',
        ),
        ("mine", {"columns": ["none"]}, 'no item column "none"; item columns: '),
        ("image", {"columns": ["title"]}, 'reads "title", which is text; expected a picture'),
        ("title", {"columns": ["price"]}, 'reads "price", which is numeric; expected text'),
        ("facts", {"columns": ["title"]}, 'reads "title", which is text; expected numeric or categorical'),
        ("facts", {"categorical": []}, 'reads "brand", which is categorical; name it in the tower\'s "categorical"'),
        ("past", {"categorical": ["past_clicks"]}, 'numeric; take it out of the tower\'s "categorical"'),
        ("title", {"share": "qury"}, '.share: there is no tower "qury"; did you mean "query"?; towers: facts, image, '),
        ("title", {"share": "image"}, '.share: tower "image" is of kind "image"; expected "text": only towers of one'),
        ("title", {"share": "title"}, '.share: tower "title" itself shares with "title"; expected a tower that shares'),
    ],
)
def test_towers_that_do_not_fit_the_data(tmp_path, tower, options, says):
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(with_towers(**{tower: options})), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}: model.towers.{tower}")
    assert says in line


@pytest.mark.parametrize("towers", [{}, {"query": TOWERS["query"]}])
def test_a_model_reads_something_of_the_items(towers):
    (wrong,) = Recipe.from_dict(changed("model.towers", towers)).wrong_towers()
    assert wrong == "model.towers: none is of side item or slot; expected at least one"


@pytest.mark.parametrize(
    ("labels", "column"),
    [({"kind": "libsvm"}, "features"), ({"kind": "elwc", "features": {"bm25": 1}, "query_text": "q"}, "bm25")],
)
def test_towers_of_lists_that_carry_features(labels, column):
    slot = {"kind": "behaviour", "side": "slot", "columns": [column]}
    content = {"data": {"labels": labels | {"files": {"train": ["a"]}}}, "model": {"towers": {"slot": slot}}}
    assert Recipe.from_dict(content).wrong_towers() == []
    slot["columns"] = ["title"]
    (wrong,) = Recipe.from_dict(content).wrong_towers()
    assert wrong == f'model.towers.slot: no slot column "title"; slot columns: {column}'


def test_missing_file(tmp_path):
    with pytest.raises(RecipeError, match=r"shop\.yaml: cannot be read"):
        Recipe.load(tmp_path / "shop.yaml")


@pytest.mark.parametrize("name", ["fashion", "crowd", "mq2008"])
def test_examples_are_valid(name):
    recipe = Recipe.load(Path(__file__).parents[1] / "examples" / f"{name}.yaml")
    assert recipe.wrong_towers() == []
    if name == "fashion":  # it names in words what the picture has to show
        assert "full_title" not in recipe.data.item_columns


def test_label_examples_of_the_data_page_are_valid():
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")
    examples = re.findall(r"```yaml\n(  labels:.*?)```", page, re.DOTALL)
    kinds = []
    for example in examples:
        content = deepcopy(GOOD)
        content["data"]["labels"] = yaml.safe_load(example)["labels"]
        kinds.append(content["data"]["labels"]["kind"])
        if kinds[-1] not in ("judgements", "logs"):
            del content["data"]["items"], content["data"]["queries"]
        Recipe.from_dict(content)
    assert kinds == ["judgements", "logs", "libsvm", "elwc"]


def test_the_data_page_names_every_key_of_labels():
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")
    for part in (Judgements, Logs, LibSVM, ExampleLists):
        for key in part.model_fields:
            assert key == "kind" or f"`{key}`" in page, key


def test_reading_a_recipe_needs_no_tensorflow():
    code = "import sys, tfmmrank.schema; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
