"""Losses of gains: TF-Ranking's own, of 2^label - 1 worked out by hand."""

import numpy as np
import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import MemoryShop, make_recipe
from tfmmrank.objectives import get_loss
from tfmmrank.stack import tf
from tfmmrank.training import build_ranker

LABELS = tf.constant([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 0.5, 1.0]])
GAINS = tf.constant([[3.0, 1.0, 0.0, -1.0], [0.0, 7.0, 2**0.5 - 1, 1.0]])
SCORES = tf.constant([[0.3, 1.0, -0.2, 5.0], [0.0, 0.1, 0.7, -1.0]])


def test_softmax_of_gains_by_hand():
    loss = get_loss("softmax_loss", gain="exp2")(LABELS[:1], SCORES[:1]).numpy()
    scores = np.array([0.3, 1.0, -0.2])  # the fourth is padding
    log_shares = scores - np.log(np.exp(scores).sum())
    assert loss == pytest.approx(-(3 * log_shares[0] + 1 * log_shares[1]), rel=1e-5)


@pytest.mark.parametrize(
    "name", ["softmax_loss", "unique_softmax_loss", "pairwise_logistic_loss", "mean_squared_loss", "lambdarank"]
)
@pytest.mark.parametrize("weights", [None, [[1.0], [0.5]]])
def test_equals_tf_ranking_on_gains(name, weights):
    got = get_loss(name, gain="exp2")(LABELS, SCORES, weights)
    assert got.numpy() == pytest.approx(get_loss(name)(GAINS, SCORES, weights).numpy(), rel=1e-6)


@pytest.mark.parametrize("gain", ["linear", "exp2"])
def test_padding_stays_padding(gain):
    loss = get_loss("softmax_loss", gain=gain)
    longer = tf.pad(LABELS, [[0, 0], [0, 3]], constant_values=-1.0), tf.pad(SCORES, [[0, 0], [0, 3]], constant_values=9)
    assert loss(*longer).numpy() == pytest.approx(loss(LABELS, SCORES).numpy(), rel=1e-6)


def test_binary_labels_are_their_own_gains():
    labels = tf.constant([[1.0, 0.0, 1.0, -1.0]])
    losses = [get_loss("approx_ndcg_loss", gain=gain)(labels, SCORES[:1]).numpy() for gain in ("linear", "exp2")]
    assert losses[0] == losses[1]


def test_options_reach_the_loss_and_unknown_gains_are_named():
    cold = get_loss("softmax_loss", gain="exp2", temperature=0.5)(LABELS, SCORES).numpy()
    assert cold == pytest.approx(get_loss("softmax_loss", temperature=0.5)(GAINS, SCORES).numpy(), rel=1e-6)
    with pytest.raises(ValueError, match='loss "softmax_loss": gain is "log"; expected "linear" or "exp2"'):
        get_loss("softmax_loss", gain="log")


def test_a_ranker_trains_on_gains(tmp_path, uncompiled):
    shop = MemoryShop(tmp_path, encode_picture, lists=8)
    towers = {"clicks": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]}}
    ranker = build_ranker(make_recipe({"dim": 8, "towers": towers, "fusion": {"kind": "mean"}}), shop)
    losses = {}
    for gain in ("linear", "exp2"):
        ranker.compile(loss="softmax_loss", loss_options={"gain": gain}, metrics=None)
        losses[gain] = ranker.evaluate(shop.dataset("valid", ranker), verbose=0)
    assert losses["exp2"] > losses["linear"]  # labels up to 3.5
    history = ranker.fit(shop.dataset("train", ranker, shuffle=True), epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
