"""A click model: how a user who looks at a ranked page clicks, adds to the cart and buys.

It simulates logs whose truth is known: the demo shop, tests of debiasing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


def _probabilities(values: ArrayLike, what: str) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all() and (array <= 1).all()):
        wrong = array[~((array >= 0) & (array <= 1))].flat[0]
        raise ValueError(f"{what} holds {wrong}; expected probabilities in [0, 1]")
    return array


class PositionBasedModel:
    """A place is looked at with its propensity, whatever stands there: P(click at k) = propensity_k * attraction.

    Args:
        propensities: probability that place k is looked at, ``[K]``, first place first.

    Source: Richardson, Dominowska and Ragno, "Predicting clicks" (WWW 2007); Craswell et al. (WSDM 2008).

    Example:
        >>> PositionBasedModel([1.0, 0.0]).simulate([1.0, 1.0], np.random.default_rng(0))
        array([ True, False])
    """

    def __init__(self, propensities: ArrayLike) -> None:
        self.propensities = _probabilities(propensities, "PositionBasedModel: propensities")
        if self.propensities.ndim != 1 or not len(self.propensities):
            raise ValueError(
                f"PositionBasedModel: propensities have shape {self.propensities.shape}; expected [K], K > 0"
            )

    @classmethod
    def power_law(cls, places: int, severity: float = 1.0) -> PositionBasedModel:
        """Propensities ``(1 / k) ** severity``: 0 is no position bias, 1 the usual one (Joachims et al. 2017)."""
        return cls((1.0 / np.arange(1, places + 1)) ** severity)

    def simulate(self, attraction: ArrayLike, rng: np.random.Generator) -> np.ndarray:
        """Draws clicks, bool ``[..., L]``.

        Args:
            attraction: probability of a click once looked at, ``[..., L]``, first place first.
            rng: source of randomness.
        """
        attraction = _probabilities(attraction, "attraction")
        places = attraction.shape[-1]
        if places > len(self.propensities):
            raise ValueError(
                f"PositionBasedModel: a page has {places} places, propensities only {len(self.propensities)}"
            )
        return rng.random(attraction.shape) < self.propensities[:places] * attraction


class Events(NamedTuple):
    """What a user did on pages: bool arrays ``[..., L]``. A purchase was in the cart, and a cart item was clicked."""

    click: np.ndarray
    cart: np.ndarray
    purchase: np.ndarray


class Funnel:
    """From click to cart to purchase.

    Args:
        clicks: the click model.

    Example:
        >>> funnel = Funnel(PositionBasedModel.power_law(10))
        >>> events = funnel.simulate([0.5, 0.5], cart=0.3, purchase=0.5, rng=np.random.default_rng(0))
    """

    def __init__(self, clicks: PositionBasedModel) -> None:
        self.clicks = clicks

    def simulate(self, attraction: ArrayLike, cart: ArrayLike, purchase: ArrayLike, rng: np.random.Generator) -> Events:
        """Draws clicks, carts and purchases.

        Args:
            attraction: P(click | looked at) ``[..., L]``.
            cart: P(cart | click), a number or ``[..., L]``.
            purchase: P(purchase | cart), a number or ``[..., L]``.
            rng: source of randomness.
        """
        clicked = self.clicks.simulate(attraction, rng)
        carted = clicked & (rng.random(clicked.shape) < _probabilities(cart, "cart"))
        bought = carted & (rng.random(clicked.shape) < _probabilities(purchase, "purchase"))
        return Events(clicked, carted, bought)
