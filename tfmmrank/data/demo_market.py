"""The demo shop's hidden truth: what its items are, what is asked for, how relevant that is, and what users did.

An item has a type, a colour, a pattern, a material and a quality. A query asks for two to four of the attributes. The
grade of an item says how many of those it misses, and quality moves it by a step::

    misses (a wrong type counts twice)   0   1   2   more
    grade                                3   2   1   0
    for 0 and 1 misses: + 1 for an item of high quality, - 1 for one of low quality

No table names an item's quality: it shows in the rating and in what users clicked and bought.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfmmrank.data.click_model import Funnel, PositionBasedModel
from tfmmrank.data.demo_words import ATTRIBUTES, BRANDS, COLOURS, MATERIALS_OF_TYPE, PATTERNS, TYPES, Need

QUALITY_STEP = 0.6  # qualities (standard normal) beyond this are high or low: 27% each
LIST_SIZE = 24
_PAGE = 20  # places on a logged result page
_ASKED = (0.97, 0.7, 0.5, 0.55)  # how often a query asks for type, colour, pattern, material
_MISSES_SHOWN = (4, 7, 7)  # candidates with 0, 1, 2 misses; the rest of a list is drawn from what misses more
_BASE_PRICE = (25, 45, 40, 20, 60, 55, 9, 35, 18, 80)


@dataclass(frozen=True)
class Items:
    """The items. ``new`` ones have no log events and no rating."""

    attributes: np.ndarray  # int [N, 4], columns as in demo_words.ATTRIBUTES
    quality: np.ndarray  # float [N], standard normal
    brand: np.ndarray  # int [N]
    price: np.ndarray  # float [N]
    rating: np.ndarray  # float [N], 1 to 5; NaN for new items
    age_days: np.ndarray  # float [N], at the end of the log
    new: np.ndarray  # bool [N]

    def __len__(self) -> int:
        return len(self.quality)

    @property
    def quality_step(self) -> np.ndarray:
        """-1, 0 or 1 for low, middle and high quality, int ``[N]``."""
        return (self.quality > QUALITY_STEP).astype(int) - (self.quality < -QUALITY_STEP).astype(int)


def make_items(count: int, rng: np.random.Generator) -> Items:
    """Draws items."""
    kind = rng.integers(len(TYPES), size=count)
    material = np.array([rng.choice(MATERIALS_OF_TYPE[k]) for k in kind], int)
    attributes = np.stack(
        [kind, rng.integers(len(COLOURS), size=count), rng.integers(len(PATTERNS), size=count), material], 1
    )
    quality = rng.standard_normal(count)
    new = rng.random(count) < 0.04
    rating = np.clip(3.7 + 0.5 * quality + rng.normal(0, 0.6, count), 1, 5).round(1)
    age_days = np.where(new, rng.uniform(0, 7, count), rng.uniform(60, 900, count)).round(2)
    price = (np.array(_BASE_PRICE)[kind] * np.exp(rng.normal(0, 0.35, count))).round(2)
    brand = rng.integers(len(BRANDS), size=count)
    return Items(attributes, quality, brand, price, np.where(new, np.nan, rating), age_days, new)


def make_needs(count: int, items: Items, rng: np.random.Generator) -> list[Need]:
    """Draws needs, no two asking for the same attributes, each fulfilled by at least one item.

    Two queries never differ in wording or language alone: a test query's answer cannot be learnt from a training
    query's.

    Raises:
        ValueError: when the items do not allow so many.
    """
    needs: list[Need] = []
    seen: set[tuple[tuple[int, int], ...]] = set()
    for _ in range(200 * count):
        if len(needs) == count:
            return needs
        target = items.attributes[rng.integers(len(items))]
        asked = np.flatnonzero(rng.random(len(ATTRIBUTES)) < _ASKED)
        wanted = tuple((int(column), int(target[column])) for column in asked)
        if len(wanted) >= 2 and wanted not in seen:
            seen.add(wanted)
            needs.append(Need(wanted, chinese=bool(rng.random() < 0.4)))
    if len(needs) == count:
        return needs
    raise ValueError(f"{len(items)} items allow no {count} different queries; ask for fewer queries or more items")


def misses(need: Need, attributes: np.ndarray) -> np.ndarray:
    """How much of a need items of ``attributes [N, 4]`` miss, int ``[N]``; a wrong type counts twice."""
    count = np.zeros(len(attributes), int)
    for column, value in need.wanted:
        count += (attributes[:, column] != value) * (2 if column == 0 else 1)
    return count


def true_grades(need: Need, items: Items) -> np.ndarray:
    """The grade of every item for a need, int ``[N]`` in 0..4."""
    missed = misses(need, items.attributes)
    return np.clip(3 - missed, 0, 3) + np.where(missed <= 1, items.quality_step, 0)


def candidates(need: Need, items: Items, rng: np.random.Generator) -> np.ndarray:
    """A list of up to ``LIST_SIZE`` items for a need, most of them near misses; in random order.

    Each asked attribute is about equally often the one that is missed, however many values it has.
    """
    missed = misses(need, items.attributes)
    wanted = dict(need.wanted)
    same_type = items.attributes[:, 0] == wanted.get(0, items.attributes[:, 0])
    # Of getting right what the item misses: evens out how often each attribute is missed.
    log_odds = np.zeros(len(items))
    for column, value in need.wanted:
        right = items.attributes[:, column] == value
        among = right if column == 0 else right[same_type]
        log_odds[~right] += np.log(among.sum() / max((~among).sum(), 1))
    order = np.argsort(-log_odds - rng.gumbel(size=len(items)), kind="stable")  # a weighted draw without replacement
    chosen = [order[missed[order] == count][:shown] for count, shown in enumerate(_MISSES_SHOWN)]
    taken = np.concatenate(chosen)
    rest = order[~np.isin(order, taken)]
    rest = rest[np.argsort(missed[rest] <= 2, kind="stable")][: max(LIST_SIZE - len(taken), 0)]
    return rng.permutation(np.concatenate([taken, rest]))[:LIST_SIZE]


def annotate(grades: np.ndarray, rng: np.random.Generator, noise: float = 0.15) -> np.ndarray:
    """Grades as annotators gave them: a share ``noise`` is one step off, within 0..4."""
    step = rng.choice([-1, 1], size=len(grades)) * (rng.random(len(grades)) < noise)
    return np.clip(grades + step, 0, 4)


@dataclass(frozen=True)
class Traffic:
    """Impressions: what users saw and did, one entry an impression."""

    query: np.ndarray  # int [R], index of the need
    item: np.ndarray  # int [R]
    session: np.ndarray  # int [R]
    seconds: np.ndarray  # float [R], since the first session
    position: np.ndarray  # int [R], from 1
    propensity: np.ndarray  # float [R]: probability that the place was looked at
    click: np.ndarray  # bool [R]
    cart: np.ndarray  # bool [R]
    purchase: np.ndarray  # bool [R]


def simulate_traffic(needs: list[Need], items: Items, sessions: int, days: float, rng: np.random.Generator) -> Traffic:
    """Simulates result pages under a mediocre policy and a position-based user.

    The policy knows the product type, if that, and ranks by a stale and noisy popularity: it shows items of all
    qualities, the better ones somewhat higher. Items that are new are not shown.

    Args:
        needs: what the users ask for; each is asked equally often, give or take.
        items: the items.
        sessions: result pages in all.
        days: length of the log.
        rng: source of randomness.
    """
    popularity = 0.5 * items.quality + rng.standard_normal(len(items))
    old = np.flatnonzero(~items.new)
    pools = [np.intersect1d(old, np.flatnonzero(items.attributes[:, 0] == kind)) for kind in range(len(TYPES))]
    asked = rng.permutation(np.resize(np.arange(len(needs)), sessions))
    places = min([_PAGE, *(len(pool) for pool in pools if len(pool))])
    shown = np.zeros((sessions, places), int)
    attraction = np.zeros((sessions, places))
    for session, query in enumerate(asked):
        wanted = dict(needs[query].wanted)
        pool = pools[wanted[0]] if 0 in wanted else old
        sample = rng.choice(pool, size=min(len(pool), 3 * places), replace=False)
        shown[session] = sample[np.argsort(-popularity[sample] - rng.normal(0, 1.5, len(sample)))][:places]
        missed = misses(needs[query], items.attributes[shown[session]])
        attraction[session] = 1.2 * items.quality[shown[session]] - 0.5 * missed
    click_model = PositionBasedModel.power_law(places, severity=0.6)
    quality = items.quality[shown]
    events = Funnel(click_model).simulate(
        attraction=_sigmoid(attraction), cart=_sigmoid(quality - 0.8), purchase=_sigmoid(quality - 0.2), rng=rng
    )
    start = np.sort(rng.uniform(0, days * 86400, sessions)).round(3)
    return Traffic(
        query=np.repeat(asked, places),
        item=shown.reshape(-1),
        session=np.repeat(np.arange(sessions), places),
        seconds=np.repeat(start, places),
        position=np.tile(np.arange(1, places + 1), sessions),
        propensity=np.tile(click_model.propensities, sessions).round(6),
        click=events.click.reshape(-1),
        cart=events.cart.reshape(-1),
        purchase=events.purchase.reshape(-1),
    )


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
