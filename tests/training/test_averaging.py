"""The average of weights over steps: its definition, and that only validation and what is kept see it."""

import numpy as np

from tests.conftest import encode_picture
from tests.tiny_shop import MemoryShop, make_recipe
from tfmmrank.stack import keras, tf
from tfmmrank.training import build_ranker, fit
from tfmmrank.training.averaging import WeightAverage


def test_is_the_exponential_average_of_the_steps():
    weight = tf.Variable([1.0, 5.0])
    average = WeightAverage([weight], 0.5)
    expected = weight.numpy()
    for step, value in enumerate(([2.0, 4.0], [3.0, 8.0], [0.0, 1.0], [9.0, 9.0]), 1):
        weight.assign(value)
        average.on_train_batch_end(0)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * np.array(value)
    average.on_test_begin()
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
    average.on_test_end()
    np.testing.assert_array_equal(weight.numpy(), [9.0, 9.0])


def test_what_is_validated_is_what_is_kept(tmp_path, uncompiled):
    shop = MemoryShop(tmp_path / "shop", encode_picture, lists=16)
    model = {"dim": 8, "towers": {"facts": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]}}}
    options = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1, "patience": 0}
    last, kept, histories = [], [], []
    for decay in (None, 0.999):
        recipe = make_recipe(model, **options, weight_averaging=decay)
        ranker = build_ranker(recipe, shop)
        look = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, ranker=ranker: last.append(ranker.trainable_variables[-1].numpy())
        )
        run = tmp_path / str(decay)
        histories.append(fit(ranker, recipe.train, shop, run, progress=False, callbacks=[look]))
        kept.append(ranker.trainable_variables[-1].numpy())
        reached = ranker.evaluate(shop.dataset("valid", ranker), verbose=0, return_dict=True)["ndcg@10"]
        np.testing.assert_allclose(reached, max(histories[-1]["val_ndcg@10"]), atol=1e-6)
    np.testing.assert_allclose(last[2:], last[:2], rtol=1e-5)  # the steps themselves are the same
    assert histories[0]["loss"] == histories[1]["loss"]
    assert not np.allclose(kept[0], kept[1])
