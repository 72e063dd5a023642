"""Simulated users: rates as the model says."""

from __future__ import annotations

import numpy as np
import pytest

from tfmmrank.data.click_model import Funnel, PositionBasedModel


def test_clicks_have_the_rate_of_propensity_times_attraction():
    model = PositionBasedModel.power_law(3, severity=1.0)
    np.testing.assert_allclose(model.propensities, [1, 1 / 2, 1 / 3])
    clicks = model.simulate(np.tile([0.9, 0.6, 0.3], (20_000, 1)), np.random.default_rng(0))
    # Five standard deviations of a mean of 20,000 draws are below 0.018.
    np.testing.assert_allclose(clicks.mean(0), [0.9, 0.3, 0.1], atol=0.018)


def test_a_page_may_be_shorter_than_the_model_and_not_longer():
    model = PositionBasedModel([1.0, 0.0])
    assert model.simulate([1.0], np.random.default_rng(0)).tolist() == [True]
    with pytest.raises(ValueError, match="a page has 3 places, propensities only 2"):
        model.simulate([1.0] * 3, np.random.default_rng(0))


@pytest.mark.parametrize("wrong", [[1.5], [np.nan], [-0.1]])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match="expected probabilities in"):
        PositionBasedModel(wrong)
    with pytest.raises(ValueError, match="expected probabilities in"):
        PositionBasedModel([1.0]).simulate(wrong, np.random.default_rng(0))


def test_a_purchase_was_in_the_cart_and_a_cart_item_was_clicked():
    funnel = Funnel(PositionBasedModel([1.0, 0.8]))
    events = funnel.simulate(np.full((20_000, 2), 0.5), cart=0.5, purchase=[0.5, 0.0], rng=np.random.default_rng(0))
    assert not (events.cart & ~events.click).any()
    assert not (events.purchase & ~events.cart).any()
    np.testing.assert_allclose(events.cart.mean(0), [0.25, 0.2], atol=0.018)
    np.testing.assert_allclose(events.purchase.mean(0), [0.125, 0], atol=0.018)
