import json
import traceback
from types import SimpleNamespace

import numpy as np
import pytest

from tests.tiny_shop import MemoryShop, make_recipe
from tfmmrank.data.batches import ListBatches
from tfmmrank.fusion import Fusion, fusions
from tfmmrank.objectives import get_loss, get_metric, loss_names
from tfmmrank.ranker import PADDING_SCORE, Ranker
from tfmmrank.stack import keras, tf, tfr, tfrs
from tfmmrank.tokens import Tokens
from tfmmrank.towers import TextTower, Tower, towers
from tfmmrank.training import build_ranker


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    from tests.conftest import encode_picture

    return MemoryShop(tmp_path_factory.mktemp("shop"), encode_picture)


@pytest.fixture(scope="module")
def ranker(shop):
    ranker = build_ranker(make_recipe(), shop)
    return ranker.build_from_columns()


@pytest.fixture(scope="module")
def batches(shop, ranker):
    return ListBatches(shop, "train", ranker, batch_size=8, static=True, progress=False)


def test_is_a_recommenders_model_with_a_ranking_task(ranker):
    assert isinstance(ranker, tfrs.Model)
    ranker.compile()
    assert isinstance(ranker.task, tfrs.tasks.Ranking)


class BranchingTower(TextTower):
    """One whose ``call`` branches on a tensor, as AutoGraph lets one's own code do; it notes what AutoGraph rewrote."""

    rewritten: set[str] = set()

    @tf.autograph.experimental.do_not_convert
    def look(self):
        self.rewritten |= {frame.name for frame in traceback.extract_stack() if "__autograph" in frame.filename}

    def call(self, features, training=False):
        self.look()
        tokens = super().call(features, training)
        values = tokens.values
        if tf.reduce_max(values) > 1e9:
            values = values * 0.0
        return Tokens(values, tokens.mask)


def test_ones_own_tower_may_branch_on_tensors_and_nothing_else_is_rewritten(shop):
    query = BranchingTower(["query"], side="query", dim=8, layers=0, max_tokens=8, name="query")
    ranker = Ranker([query, TextTower(["title"], dim=8, layers=0, max_tokens=8, name="title")], deep=())
    ranker.adapt(shop, progress=False).build_from_columns()
    ranker.compile()
    ranker.fit(ListBatches(shop, "train", ranker, batch_size=8, progress=False).dataset().take(1), verbose=0)
    assert query.rewritten == {"tf__train_function", "tf__call"}  # Keras's, and the tower's


def test_padding_scores_are_constant_and_padding_changes_nothing(shop, ranker, batches):
    features, labels, _ = batches.batch(np.arange(3))
    scores = ranker(features).numpy()
    assert (scores[labels < 0] == PADDING_SCORE).all()
    wider = ListBatches(shop, "train", ranker, batch_size=16, list_size=30, shuffle=True, progress=False)
    again = ranker(wider.batch(np.arange(3))[0]).numpy()
    real = labels[:3] >= 0
    # Other batch shapes take other matrix kernels, which add in another order.
    np.testing.assert_allclose(again[:3, : labels.shape[1]][real], scores[:3][real], atol=1e-4)


def test_permuting_a_list_permutes_its_scores(ranker, batches, rng):
    features, labels, _ = batches.batch(np.arange(8))
    order = rng.permutation(labels.shape[1])
    permuted = {
        name: value[:, order] if name in ("item_index", "slot_mask") or name.startswith("slot/") else value
        for name, value in features.items()
    }
    np.testing.assert_allclose(ranker(features).numpy()[:, order], ranker(permuted).numpy(), atol=1e-4)


def test_placeholder_bytes_of_a_missing_picture_change_nothing(ranker, batches):
    features, _, _ = batches.batch(np.arange(8))
    junk = dict(features)
    missing = ~features["item/image/present"]
    assert missing.any()
    junk["item/image/pixels"] = np.where(missing[:, None, None, None], np.uint8(123), features["item/image/pixels"])
    np.testing.assert_array_equal(ranker(features), ranker(junk))


def test_one_by_one_equals_the_batch(shop, ranker):
    batches = ListBatches(shop, "test", ranker, batch_size=8, progress=False)
    whole = ranker(batches.batch(np.arange(8))[0]).numpy()
    for number in range(8):
        alone = ranker(batches.batch(np.array([number]))[0]).numpy()
        np.testing.assert_allclose(alone[0], whole[number], atol=1e-4)


def test_batch_is_what_the_lists_say(shop, ranker, batches):
    features, labels, weights = batches.batch(np.array([5, 2]))
    lists = shop.lists("train")
    for b, number in enumerate([5, 2]):
        span = slice(lists.offsets[number], lists.offsets[number + 1])
        size = span.stop - span.start
        np.testing.assert_array_equal(labels[b, :size], lists.labels[span])
        rows = lists.item_rows[span]
        price = shop.catalogue.rows(rows)["price"]
        got = features["item/attributes/present"][features["item_index"][b, :size], 0]
        np.testing.assert_array_equal(got > 0, np.isfinite(price))
    assert (labels[2:] == -1).all()
    assert weights[2:].sum() == 0


def test_queries_are_preprocessed_in_parts(shop, ranker, monkeypatch):
    whole = ListBatches(shop, "train", ranker, progress=False).query
    monkeypatch.setattr("tfmmrank.data.batches._QUERIES", 7)  # of 24
    sizes = []
    preprocess = ranker.preprocess_query
    monkeypatch.setattr(ranker, "preprocess_query", lambda raw: sizes.append(len(raw["query"])) or preprocess(raw))
    parts = ListBatches(shop, "train", ranker, progress=False).query
    assert sizes == [7, 7, 7, 3]
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)


def test_epochs_shuffle_by_seed_and_epoch_alone(shop, ranker):
    batches = ListBatches(shop, "train", ranker, batch_size=8, shuffle=True, seed=3, progress=False)
    first = [labels for _, labels, _ in batches.epoch(0)]
    assert any((a != b).any() for a, b in zip(first, [x for _, x, _ in batches.epoch(1)], strict=True))
    resumed = [labels for _, labels, _ in batches.dataset(initial_epoch=0, skip=1).as_numpy_iterator()]
    for a, b in zip(first[1:], resumed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_list_cut_short_is_refused_when_evaluating(shop, ranker):
    with pytest.raises(ValueError, match="list_size is 5"):
        ListBatches(shop, "test", ranker, list_size=5, progress=False)


def test_fit_learns_and_predict_and_evaluate_behave(shop, tmp_path):
    ranker = build_ranker(make_recipe(), shop)
    ranker.compile(keras.optimizers.Adam(3e-3), metrics=["ndcg@10", "mrr"])
    train = shop.dataset("train", ranker, batch_size=8, shuffle=True)
    history = ranker.fit(train, validation_data=shop.dataset("valid", ranker), epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["val_ndcg@10"][-1] > 0.75
    test = shop.dataset("test", ranker, batch_size=8)
    scores = ranker.predict(test, verbose=0)
    assert scores.shape == (24, int(np.diff(shop.lists("test").offsets).max()))
    assert set(ranker.evaluate(test, verbose=0, return_dict=True)) == {"loss", "ndcg@10", "mrr"}

    ranker.save_weights(tmp_path / "w.weights.h5")
    ranker.save_ranker(tmp_path / "ranker")
    again = Ranker.load_ranker(tmp_path / "ranker")
    np.testing.assert_allclose(shop.scores(again), scores, atol=1e-5)
    fresh = build_ranker(make_recipe(seed=9), shop).build_from_columns()
    assert np.abs(shop.scores(fresh) - scores).max() > 1e-2
    fresh.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_allclose(shop.scores(fresh), scores, atol=1e-5)


@pytest.mark.slow
def test_one_whole_step_compiles_with_xla_and_gives_the_same_loss(shop):
    """Forward, loss, gradient and update, without dropout, whose random numbers differ under XLA."""
    losses = []
    for jit in (False, True):
        recipe = make_recipe()
        ranker = build_ranker(recipe, shop)
        ranker.build_from_columns()
        for layer in ranker._flatten_layers():
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        ranker.compile(keras.optimizers.Adam(1e-3), metrics=[])
        batch = ListBatches(shop, "train", ranker, batch_size=8, static=True, progress=False).batch(np.arange(8))
        batch = tf.nest.map_structure(tf.constant, batch)
        ranker.optimizer.build(ranker.trainable_variables)

        @tf.function(jit_compile=jit)
        def step(features, labels, weights, ranker=ranker):
            with tf.GradientTape() as tape:
                loss = ranker.compute_loss((features, labels, weights), training=True)
            variables = ranker.trainable_variables
            ranker.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return loss

        losses.append([float(step(*batch)), float(step(*batch))])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-4)  # the second holds the first's update


@pytest.mark.parametrize("name", loss_names())
def test_every_loss_by_its_name(name):
    options = {"coupled_rankdistil_loss": {"sample_size": 2}}.get(name, {})
    labels = tf.constant([[2.0, 0.0, 1.0, -1.0], [0.0, 1.0, -1.0, -1.0]])
    scores = tf.Variable([[0.1, 0.7, 0.2, 0.0], [0.3, -0.2, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = get_loss(name, **options)(labels, scores)
    assert np.isfinite(loss.numpy())
    assert np.isfinite(tape.gradient(loss, scores).numpy()).all()


def test_ranknet_by_hand():
    labels, scores = tf.constant([[1.0, 0.0, -1.0]]), tf.constant([[0.5, 1.5, 9.0]])
    assert get_loss("ranknet")(labels, scores).numpy() == pytest.approx(np.log1p(np.exp(1.0)), rel=1e-5)
    softmax = get_loss("listnet")(labels, scores).numpy()
    assert softmax == pytest.approx(-np.log(np.exp(0.5) / (np.exp(0.5) + np.exp(1.5))), rel=1e-5)


def test_lambda_weights_by_name():
    loss = get_loss("pairwise_logistic_loss", lambda_weight={"kind": "ndcg", "topn": 5})
    assert isinstance(loss._lambda_weight, tfr.keras.losses.NDCGLambdaWeight)
    with pytest.raises(ValueError, match='did you mean "ndcg"'):
        get_loss("softmax_loss", lambda_weight="ndgc")


def test_wrong_names_say_what_was_meant():
    with pytest.raises(ValueError, match='did you mean "softmax_loss"'):
        get_loss("sofmax_loss")
    with pytest.raises(ValueError, match="cut-off"):
        get_metric("ndcg@ten")
    with pytest.raises(ValueError, match='did you mean "gated"'):
        fusions["gatd"]


@pytest.mark.parametrize("name", ["softmax_loss", "ranknet", "approx_ndcg_loss", "sigmoid_cross_entropy_loss"])
def test_loss_does_not_change_with_padding(shop, ranker, name):
    ranker.compile(loss=name)
    small = ListBatches(shop, "train", ranker, batch_size=4, static=True, progress=False)
    large = ListBatches(shop, "train", ranker, batch_size=9, list_size=40, shuffle=True, progress=False)
    losses = [float(ranker.compute_loss(b.batch(np.arange(4)))) for b in (small, large)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_metrics_do_not_count_lists_of_padding_alone(shop, ranker):
    ranker.compile(metrics=["ndcg@10", "mrr"])
    found = []
    for size in (4, 9):
        ranker.reset_metrics()
        batches = ListBatches(shop, "train", ranker, batch_size=size, static=True, progress=False)
        ranker.compute_loss(batches.batch(np.arange(4)))
        found.append([float(metric.result()) for metric in ranker.task.metrics])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_compiling_again_and_metrics_as_keras_takes_them(shop, ranker, uncompiled):
    for metrics, names in ((None, []), ("mrr", ["mrr"]), (["ndcg@5", "mrr"], ["ndcg@5", "mrr"])):
        ranker.compile(metrics=metrics)
        weights = len(ranker.weights)
        found = ranker.evaluate(shop.dataset("valid", ranker), verbose=0)
        assert np.size(found) == 1 + len(names)
        assert ranker.metrics_names == ["loss", *names]
        assert len(ranker.weights) == weights


@pytest.mark.parametrize(
    ("optimizer", "traces"), [(keras.optimizers.Adam, 1), (keras.optimizers.legacy.Adam, 2)], ids=["adam", "legacy"]
)
def test_the_training_step_is_traced_once(shop, monkeypatch, optimizer, traces):
    """Keras would trace it again, once its first run made variables, as legacy optimizers' does."""
    traced = []
    train_step = Ranker.train_step
    monkeypatch.setattr(Ranker, "train_step", lambda self, inputs: traced.append(1) or train_step(self, inputs))
    ranker = Ranker([TextTower(["title"], layers=0, name="title")], "mean", cross_layers=0, deep=()).adapt(shop)
    ranker.compile(optimizer(0.01), metrics=None)
    ranker.fit(shop.dataset("train", ranker, batch_size=8, shuffle=True), verbose=0)
    assert len(traced) == traces
    assert int(ranker.optimizer.iterations) == 3


def test_losses_that_cannot_work_are_refused(ranker):
    for loss, said in (
        (keras.losses.MeanSquaredError(), "reduction=keras.losses.Reduction.SUM"),
        (None, "expected a TF-Ranking name"),
        ("ordinal_loss", "a score a grade"),
    ):
        with pytest.raises(ValueError, match=said):
            ranker.compile(loss=loss)
    with pytest.raises(NotImplementedError, match="save_ranker"):
        ranker.save("ranker.keras")


def test_ranker_refuses_what_cannot_work(shop):
    query = TextTower(["query"], side="query", name="query")
    with pytest.raises(ValueError, match="at least one tower of side item or slot"):
        Ranker([query])
    with pytest.raises(ValueError, match='two towers are named "query"'):
        Ranker([query, TextTower(["title"], name="query")])
    with pytest.raises(ValueError, match="must be a tower of the same ranker"):
        Ranker([TextTower(["title"], share=query, name="title")])
    with pytest.raises(ValueError, match="towers' dims differ"):
        Ranker([query, TextTower(["title"], dim=32, name="title")])
    with pytest.raises(ValueError, match='lacks; did you mean "title"'):
        Ranker([TextTower(["titel"], name="title")]).adapt(shop)


def test_towers_and_fusions_of_ones_own(shop, tmp_path):
    """A user's tower and fusion, registered from outside the package, train, save and load."""

    @towers.register("text_length")
    class LengthTower(Tower):
        def preprocess(self, raw):
            return {"length": tf.cast(tf.strings.length(raw[self.columns[0]]), tf.float32)[:, None]}

        def build(self, shape):
            self.dense = keras.layers.Dense(self.dim)

        def call(self, features, training=False):
            return Tokens(self.dense(features["length"])[:, None], features["length"] > 0)

    @fusions.register("first")
    class FirstFusion(Fusion):
        def build(self, shape=None):
            self.dense = keras.layers.Dense(self.dim)

        def call(self, query, item, training=False):
            tokens = next(iter(item.values()))
            return self.dense(tf.where(tokens.mask[..., :1, None], tokens.values, 0.0)[..., 0, :])

    ranker = Ranker([LengthTower(["title"], name="length")], fusion="first").adapt(shop)
    ranker.compile()
    ranker.fit(shop.dataset("train", ranker, shuffle=True), verbose=0)
    ranker.save_ranker(tmp_path)
    again = Ranker.load_ranker(tmp_path)
    assert json.loads((tmp_path / "ranker.json").read_text())["fusion"]["kind"] == "first"
    np.testing.assert_allclose(shop.scores(ranker), shop.scores(again), atol=1e-6)


def test_an_option_that_get_config_forgets_is_told(shop):
    @fusions.register("signed")
    class SignedFusion(fusions["mean"]):
        def __init__(self, sign=1.0, **options):
            super().__init__(**options)
            self.sign = sign

    ranker = Ranker([TextTower(["title"], name="title")], SignedFusion(sign=-1.0, name="signed"))
    with pytest.raises(ValueError, match='SignedFusion "signed": get_config does not return sign'):
        ranker.get_config()


def test_a_tower_s_tokens_of_a_wrong_shape_are_told(shop):
    class FlatTower(Tower):
        def preprocess(self, raw):
            return {"length": tf.strings.length(raw["title"])}

        def call(self, features, training=False):
            return Tokens(tf.zeros([len(features["length"]), self.dim]), features["length"] > 0)

    with pytest.raises(ValueError, match=r'tower "flat" gave values of shape \(1, 64\).*expected \[n, T, 64\]'):
        Ranker([FlatTower(["title"], name="flat")]).adapt(shop).build_from_columns()


def test_another_dataset_s_columns_are_told(shop, ranker):
    other = SimpleNamespace(
        path="other", query_columns=shop.query_columns, slot_columns={}, item_columns={"name": "text"}
    )
    with pytest.raises(ValueError, match=r'reads the item column "\w+", which dataset other lacks'):
        ranker.columns_in(other)
    other.item_columns = {**shop.item_columns, "title": "image"}
    other.slot_columns = shop.slot_columns
    with pytest.raises(ValueError, match='"title" as text; in dataset other it is image'):
        ranker.columns_in(other)


def test_features_are_made_anew_when_the_tower_s_code_changes(shop):
    from tfmmrank.data.feature_store import item_features
    from tfmmrank.towers import Tower

    def make(factor):
        class Scaled(Tower):
            def preprocess(self, raw):
                return {"price": raw["price"] * factor}

        return Scaled(["price"], name="scaled")

    def make_other():
        class Scaled(Tower):
            def preprocess(self, raw):
                return {"price": raw["price"] * 100.0}

        return Scaled(["price"], name="scaled")

    once, again = item_features(shop, make(1.0))["price"], item_features(shop, make_other())["price"]
    np.testing.assert_allclose(again, once * 100.0)
