"""TF-Ranking's Keras losses by name."""

from __future__ import annotations

from typing import Any

from tfmmrank.registry import nearest
from tfmmrank.stack import keras, tf, tfr

# What the literature calls them -> TF-Ranking's key and the options that make it so.
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ranknet": ("pairwise_logistic_loss", {}),
    "lambdarank": ("pairwise_logistic_loss", {"lambda_weight": "ndcg"}),
    "lambdaloss": ("pairwise_logistic_loss", {"lambda_weight": "ndcg_v2"}),
    "softmax": ("softmax_loss", {}),
    "listnet": ("softmax_loss", {}),  # the labels as they are, where the paper takes their softmax
    "listmle": ("list_mle_loss", {}),
    "approx_ndcg": ("approx_ndcg_loss", {}),
    "gumbel_approx_ndcg": ("gumbel_approx_ndcg_loss", {}),
}

_ORDINAL = "ordinal_loss"


def loss_names() -> list[str]:
    """Every name that ``get_loss`` takes."""
    return [*(key for key in tfr.keras.losses.RankingLossKey.all_keys() if key != _ORDINAL), *ALIASES]


def _lambda_weight(spec: str | dict[str, Any] | Any) -> Any:
    """A lambda weight from ``"ndcg"`` or ``{"kind": "ndcg", "topn": 10}``; an object passes through."""
    kinds = {
        "label_diff": tfr.keras.losses.LabelDiffLambdaWeight,
        "dcg": tfr.keras.losses.DCGLambdaWeight,
        "ndcg": tfr.keras.losses.NDCGLambdaWeight,
        "ndcg_v2": tfr.keras.losses.NDCGLambdaWeightV2,
        "yeti_dcg": tfr.keras.losses.YetiDCGLambdaWeight,
        "precision": tfr.keras.losses.PrecisionLambdaWeight,
        "list_mle": tfr.keras.losses.ListMLELambdaWeight,
    }
    if isinstance(spec, str):
        spec = {"kind": spec}
    if not isinstance(spec, dict):
        return spec
    options = dict(spec)
    kind = str(options.pop("kind", ""))
    if kind not in kinds:
        raise ValueError(f'unknown lambda weight "{kind}"{nearest(kind, list(kinds))}; known: {", ".join(kinds)}')
    if kind == "list_mle":
        options.setdefault("rank_discount_fn", tfr.keras.utils.log2_inverse)
    return kinds[kind](**options)


def get_loss(name: str, lambda_weight: Any = None, gain: str = "linear", **options: Any) -> Any:
    """A TF-Ranking loss that sums over lists (the Ranker divides by the number of lists).

    Args:
        name: TF-Ranking's key, such as ``softmax_loss`` or ``pairwise_logistic_loss``, or one of ``ALIASES``.
        lambda_weight: for the pairwise and some listwise losses: ``"ndcg"``, ``"ndcg_v2"``, ``"dcg"``,
            ``"label_diff"``, ``"precision"``, ``"list_mle"``, ``"yeti_dcg"``, or a dict with ``kind`` and options such
            as ``topn``.
        gain: what a label counts: itself (``linear``), or ``exp2``, 2^label - 1, as NDCG's gain. Listwise losses that
            spread probability by label then ask for the order at the top that NDCG asks for.
        **options: whatever the TF-Ranking class takes, such as ``temperature``.

    Returns:
        ``keras.losses.Loss`` on labels and scores ``[B, L]``, labels below 0 being padding.

    Raises:
        ValueError: for an unknown name, lambda weight or gain, or options that the loss does not take.
    """
    if name in ALIASES:
        key, preset = ALIASES[name]
        lambda_weight = lambda_weight if lambda_weight is not None else preset.get("lambda_weight")
    else:
        key = name
    if key == _ORDINAL:
        raise ValueError(f'loss "{_ORDINAL}" needs a score a grade; a Ranker gives one score an item')
    if key not in tfr.keras.losses.RankingLossKey.all_keys():
        known = loss_names()
        raise ValueError(f'unknown loss "{name}"{nearest(name, known)}; known: {", ".join(known)}')
    if lambda_weight is not None:
        lambda_weight = _lambda_weight(lambda_weight)
    if gain not in ("linear", "exp2"):
        raise ValueError(f'loss "{name}": gain is "{gain}"; expected "linear" or "exp2"')
    try:
        loss = tfr.keras.losses.get(key, keras.losses.Reduction.SUM, lambda_weight=lambda_weight, **options)
    except TypeError as error:
        raise ValueError(f'loss "{name}" does not take these options: {error}') from error
    return loss if gain == "linear" else _OfGains(loss)


class _OfGains(keras.losses.Loss):
    """A loss of 2^label - 1 in place of labels; padding, below 0, stays."""

    def __init__(self, loss: Any) -> None:
        super().__init__(keras.losses.Reduction.SUM, f"{loss.name}_of_gains")
        self.loss = loss

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        gains = tf.where(y_true > 0, tf.pow(tf.constant(2.0, y_true.dtype), y_true) - 1.0, y_true)
        return self.loss(gains, y_pred, sample_weight)
