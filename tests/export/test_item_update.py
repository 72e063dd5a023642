"""A model's next version from its latest: what is copied, what is encoded, and that nobody could tell."""

import copy
import json

import numpy as np
import pytest

from tests.export.small_shop import MODEL, make_ranker, make_shop
from tests.tiny_shop import MemoryCatalogue, as_bytes
from tfmmrank.data.feature_rows import DIGEST
from tfmmrank.encoders.hub import HubTextEncoder
from tfmmrank.export import Servable, export, update_items
from tfmmrank.export.description import DESCRIPTION_FILE, describe, write_description
from tfmmrank.export.item_tokens import DIGESTS_FILE, TokenFiles, write_digests
from tfmmrank.ranker import Ranker
from tfmmrank.stack import tf
from tfmmrank.towers.pretrained_text import PretrainedTextTower

ITEMS = 40
REMOVED, CHANGED = (4, 17), (0, 5)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, all_uncompiled):
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def ranker(shop):
    """Quick to export: without blocks over words, and without list context."""
    towers = {**MODEL["towers"], "query": {**MODEL["towers"]["query"], "layers": 0}}
    return make_ranker(shop, {**MODEL, "towers": towers, "context": None})


@pytest.fixture(scope="module")
def model(ranker, shop, tmp_path_factory):
    model = tmp_path_factory.mktemp("models") / "shop"
    export(ranker, shop, model, progress=False, facts={"ndcg@10": 0.25}, weights="float16")
    return model


@pytest.fixture(scope="module")
def later(shop):
    """The shop some days on: in another order, without two items, two changed, three new, one of them like another."""
    rows = np.setdiff1d(np.arange(ITEMS), REMOVED)[::-1]
    columns = {name: np.concatenate([values[rows], values[:3]]) for name, values in shop.catalogue._columns.items()}
    ids = [*(f"i{row}" for row in rows), "new a", "new b", "new c"]
    columns["title"][ids.index("new a")] = b"red hat 99"
    columns["title"][ids.index("new b")] = b"blue bag"
    columns["title"][ids.index("new c")] = b"shirt model 2"
    columns["title"][ids.index(f"i{CHANGED[0]}")] = b"green shoe"
    columns["price"][ids.index(f"i{CHANGED[1]}")] = 3.5
    columns["image"][ids.index("i9")] = b"another picture, which this ranker does not look at"
    columns["past_clicks"] = np.arange(len(ids), dtype=np.float32)
    later = copy.copy(shop)
    later.catalogue, later.build = MemoryCatalogue(ids, columns), "later"
    return later


@pytest.fixture(scope="module")
def encoded():
    """Rows that go through the towers, by tower."""
    return {}


@pytest.fixture(scope="module")
def update(model, ranker, later, encoded):
    with pytest.MonkeyPatch.context() as patch:
        write = TokenFiles.write

        def record(self, rows, name, tokens):
            encoded.setdefault(name, []).extend(rows.tolist())
            write(self, rows, name, tokens)

        patch.setattr(TokenFiles, "write", record)
        return update_items(ranker, later, model, progress=False)


@pytest.fixture(scope="module")
def full(ranker, later, tmp_path_factory):
    """What the update must equal."""
    model = tmp_path_factory.mktemp("models") / "shop"
    return export(ranker, later, model, progress=False, weights="float16")


def test_the_counts(update, model):
    assert (update.path, update.previous) == (model / "2", model / "1")
    assert (update.added, update.changed, update.removed, update.unchanged) == (3, 2, 2, 36)


def test_only_what_is_new_is_encoded(update, encoded, later):
    """ "new c" reads like an item that was there."""
    ids = later.catalogue.ids.tolist()
    expected = sorted(ids.index(item) for item in ("new a", "new b", "i0", "i5"))
    assert {name: sorted(rows) for name, rows in encoded.items()} == {"title": expected, "facts": expected}
    assert update.encoded == 4


def test_every_tensor_is_that_of_a_full_export(update, full):
    updated, exported = (
        tf.train.load_checkpoint(str(path / "variables" / "variables")) for path in (update.path, full)
    )
    shapes = exported.get_variable_to_shape_map()
    assert updated.get_variable_to_shape_map() == shapes
    assert sum("table_values" in name for name in shapes) == 2
    for name in shapes:
        if not name.startswith("_"):
            np.testing.assert_array_equal(updated.get_tensor(name), exported.get_tensor(name), err_msg=name)
    np.testing.assert_array_equal(np.load(update.path / DIGESTS_FILE), np.load(full / DIGESTS_FILE))


def test_it_answers_as_a_full_export(update, full):
    ids = as_bytes(["i0", "new b", "i4", "i33", "new c"])[None]
    asked = {"query": as_bytes(["red shoe"]), "item_ids": ids, "num_items": np.array([5], np.int32)}
    answers = []
    for path in (update.path, full):
        servable = Servable(path)
        answers.append(servable.run("rank", asked))
        servable.close()
    assert answers[0]["known"].tolist() == [[True, True, False, True, True]]
    np.testing.assert_array_equal(answers[0]["scores"], answers[1]["scores"])


def test_what_was_told_of_the_ranker_is_kept(update):
    description = json.loads((update.path / DESCRIPTION_FILE).read_text("utf-8"))
    assert description["ndcg@10"] == 0.25
    assert description["weights"] == "float16"
    assert description["num_items"] == ITEMS + 1


def test_another_ranker_is_refused(update, model, ranker, later):
    head = ranker.cross.head.bias
    before = head.numpy()
    head.assign(before + 1)
    try:
        with pytest.raises(ValueError, match=r"shop/2: was exported of another ranker .*without --update-items"):
            update_items(ranker, later, model, progress=False)
    finally:
        head.assign(before)


class Lengths(tf.Module):
    """A text module: bytes and their square."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        lengths = tf.cast(tf.strings.length(texts), tf.float32)
        return tf.stack([lengths, lengths**2], 1)


@pytest.fixture(scope="module")
def described(shop, tmp_path_factory):
    """A ranker's folder, its encoder's, and a model whose version says that it was exported of that ranker."""
    folder = tmp_path_factory.mktemp("hub")
    tf.saved_model.save(Lengths(), str(folder / "module"))
    title = PretrainedTextTower(["title"], dim=4, encoder=HubTextEncoder(str(folder / "module")), name="title")
    ranker = Ranker([title], cross_layers=0, deep=[4]).adapt(shop, progress=False).build_from_columns()
    ranker.save_ranker(folder / "ranker")
    version = folder / "shop" / "1"
    version.mkdir(parents=True)
    write_description(version, {**describe(ranker, shop, "float32"), "item_tokens": {"title": "float32"}}, {})
    write_digests(np.zeros(ITEMS, DIGEST), version)
    return folder


def refusal(described, shop):
    """What an update with no items says; its ranker is looked at first."""
    empty = copy.copy(shop)
    empty.catalogue = MemoryCatalogue([], {})
    with pytest.raises(ValueError, match="shop") as caught:
        update_items(Ranker.load_ranker(described / "ranker"), empty, described / "shop", progress=False)
    return str(caught.value)


def test_an_encoder_whose_files_changed_is_another_ranker(described, shop):
    assert "holds no items to update" in refusal(described, shop)
    vocabulary = described / "module" / "assets" / "vocabulary.txt"
    vocabulary.write_text("red")
    assert "shop/1: was exported of another ranker (digest" in refusal(described, shop)
    vocabulary.unlink()
    assert "holds no items to update" in refusal(described, shop)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("code_digest", "0", "shop/1: was exported by other code of towers and encoders, and its items' tokens"),
        ("libraries", {"tensorflow": "2.0"}, "was exported with tensorflow 2.0 (here: 2."),
    ],
)
def test_what_computed_the_tokens_must_be_what_computes_the_new_ones(described, shop, key, value, message):
    file = described / "shop" / "1" / DESCRIPTION_FILE
    before = file.read_text("utf-8")
    description = json.loads(before)
    description[key] = {**description[key], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(description), "utf-8")
    assert message in refusal(described, shop)
    file.write_text(before, "utf-8")


def test_a_model_without_versions_is_told(ranker, later, tmp_path):
    with pytest.raises(FileNotFoundError, match="write a model with `tfmmrank export`"):
        update_items(ranker, later, tmp_path / "none", progress=False)


def test_a_version_without_digests_is_told(update, ranker, later, tmp_path):
    folder = tmp_path / "shop" / "1" / "assets.extra"
    folder.mkdir(parents=True)
    (folder / "tfmmrank.json").write_text((update.path / DESCRIPTION_FILE).read_text("utf-8"), "utf-8")
    with pytest.raises(ValueError, match="holds no items that can be updated"):
        update_items(ranker, later, tmp_path / "shop", progress=False)
