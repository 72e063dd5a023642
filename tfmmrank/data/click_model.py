"""Click models: how a user who looks at a ranked page clicks, adds to the cart and buys.

They simulate logs whose truth is known (the demo shop, tests of debiasing), and give click probabilities in closed
form. A model composes with others: ``Mixture`` of users, ``Funnel`` from a click to a purchase.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


def _probabilities(values: ArrayLike, what: str) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all() and (array <= 1).all()):
        wrong = array[~((array >= 0) & (array <= 1))].flat[0]
        raise ValueError(f"{what} holds {wrong}; expected probabilities in [0, 1]")
    return array


class ClickModel(ABC):
    """Clicks on pages whose items, from the top, attract with given probabilities."""

    @abstractmethod
    def click_probabilities(self, attraction: ArrayLike) -> np.ndarray:
        """The chance of a click at each place.

        Args:
            attraction: probability of a click once looked at, ``[..., L]``, first place first.

        Returns:
            float64 ``[..., L]``.
        """

    @abstractmethod
    def simulate(self, attraction: ArrayLike, rng: np.random.Generator) -> np.ndarray:
        """Draws clicks, bool ``[..., L]``, for pages of attraction ``[..., L]``."""


class PositionBasedModel(ClickModel):
    """A place is looked at with its propensity, whatever stands there: P(click at k) = propensity_k * attraction.

    Args:
        propensities: probability that place k is looked at, ``[K]``, first place first.

    Source: Richardson, Dominowska and Ragno, "Predicting clicks" (WWW 2007); Craswell et al. (WSDM 2008).

    Example:
        >>> PositionBasedModel([1.0, 0.5]).click_probabilities([0.4, 0.4])
        array([0.4, 0.2])
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

    def _at(self, attraction: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        attraction = _probabilities(attraction, "attraction")
        places = attraction.shape[-1]
        if places > len(self.propensities):
            raise ValueError(
                f"PositionBasedModel: a page has {places} places, propensities only {len(self.propensities)}"
            )
        return self.propensities[:places], attraction

    def click_probabilities(self, attraction: ArrayLike) -> np.ndarray:
        """Propensity * attraction."""
        seen, attraction = self._at(attraction)
        return seen * attraction

    def simulate(self, attraction: ArrayLike, rng: np.random.Generator) -> np.ndarray:
        """Independent draws at each place."""
        probabilities = self.click_probabilities(attraction)
        return rng.random(probabilities.shape) < probabilities


class CascadeModel(ClickModel):
    """The user reads from the top, and after each place may go on or leave.

    Args:
        after_click: probability of reading on after a click. 0 is the cascade model (at most one click a page), above
            0 the dependent click model with one continuation for all places.
        after_skip: probability of reading on after no click; 1 in both of those, below 1 a user who loses patience.

    Source: Craswell et al., "An experimental comparison of click position-bias models" (WSDM 2008); Guo, Liu and Wang
    (WSDM 2009).

    Example:
        >>> CascadeModel().click_probabilities([0.5, 0.5, 0.5])
        array([0.5  , 0.25 , 0.125])
    """

    def __init__(self, after_click: float = 0.0, after_skip: float = 1.0) -> None:
        self.after_click = float(_probabilities(after_click, "CascadeModel: after_click"))
        self.after_skip = float(_probabilities(after_skip, "CascadeModel: after_skip"))

    def click_probabilities(self, attraction: ArrayLike) -> np.ndarray:
        """P(read to k) * attraction_k, where reading goes on with the mean over click and skip."""
        attraction = _probabilities(attraction, "attraction")
        goes_on = attraction * self.after_click + (1 - attraction) * self.after_skip
        reads = np.ones_like(attraction)
        reads[..., 1:] = np.cumprod(goes_on, axis=-1)[..., :-1]
        return reads * attraction

    def simulate(self, attraction: ArrayLike, rng: np.random.Generator) -> np.ndarray:
        """One reading of each page from the top."""
        attraction = _probabilities(attraction, "attraction")
        attracted = rng.random(attraction.shape) < attraction
        goes_on = rng.random(attraction.shape) < np.where(attracted, self.after_click, self.after_skip)
        reads = np.ones(attraction.shape, bool)
        reads[..., 1:] = np.logical_and.accumulate(goes_on, axis=-1)[..., :-1]
        return reads & attracted


class Mixture(ClickModel):
    """Several kinds of users: each page is read by one of them.

    Args:
        models: the kinds.
        weights: their shares ``[M]``, summing to 1.
    """

    def __init__(self, models: Sequence[ClickModel], weights: ArrayLike) -> None:
        self.models = list(models)
        self.weights = _probabilities(weights, "Mixture: weights")
        if self.weights.shape != (len(self.models),) or not np.isclose(self.weights.sum(), 1):
            raise ValueError(f"Mixture: weights are {self.weights.tolist()}; expected {len(self.models)} that sum to 1")

    def click_probabilities(self, attraction: ArrayLike) -> np.ndarray:
        """The weighted mean of the models'."""
        parts = [
            weight * model.click_probabilities(attraction)
            for weight, model in zip(self.weights, self.models, strict=True)
        ]
        return np.sum(parts, axis=0)

    def simulate(self, attraction: ArrayLike, rng: np.random.Generator) -> np.ndarray:
        """Draws a model for each page, then its clicks."""
        attraction = np.asarray(attraction, np.float64)
        drawn = np.stack([model.simulate(attraction, rng) for model in self.models])
        who = rng.choice(len(self.models), size=attraction.shape[:-1], p=self.weights)
        return np.take_along_axis(drawn, who[None, ..., None], axis=0)[0]


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
        >>> events = funnel.simulate(attraction, cart=0.3, purchase=0.5, rng=np.random.default_rng(0))
    """

    def __init__(self, clicks: ClickModel) -> None:
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
