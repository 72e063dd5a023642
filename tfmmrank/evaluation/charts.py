"""The report's charts, as SVG in data URIs."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmmrank.evaluation.metrics import TIES_AVERAGED
from tfmmrank.evaluation.tables import TIES_TELL, Table, title

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
MODEL, OTHER, BOUND, TRAIN = "#0f766e", "#a7b6c2", "#d9e2ec", "#9fb3c8"
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.fonttype": "none",  # the reader's browser draws the letters: system names may be Chinese
    "svg.hashsalt": "tfmmrank",  # the same figures give the same file
}


def history_chart(history: Mapping[str, Sequence[float]]) -> str:
    """Training curves: a panel a metric, training and validation in it; the best validation epoch is marked."""
    names = list(dict.fromkeys(name.removeprefix("val_") for name in history))
    figure, axes = _figure(len(names), 11, 3.1)
    best = _best_epoch(history)
    for axis, name in zip(axes, names, strict=True):
        for key, colour, label in ((name, TRAIN, "training"), (f"val_{name}", MODEL, "validation")):
            if key in history:
                values = list(history[key])
                axis.plot(
                    range(1, len(values) + 1), values, "o-", color=colour, label=label, linewidth=2, markersize=3.5
                )
        if best is not None:
            axis.axvline(best, color=MUTED, linewidth=1, linestyle=":", label=f"best epoch ({best})")
        axis.set_title("loss" if name == "loss" else title(name), loc="left", fontsize=11)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False, fontsize=9)
    return _data_uri(figure)


def _best_epoch(history: Mapping[str, Sequence[float]]) -> int | None:
    """The first epoch with the highest validation NDCG, from 1."""
    for name, values in history.items():
        if name.startswith("val_ndcg") and len(values):
            return int(np.argmax(values)) + 1
    return None


def systems_chart(table: Table, marked: str) -> str:
    """The main metric of every system as bars with their intervals; ``marked`` stands out."""
    names = list(table.rows)
    found = [table.interval(name) for name in names]
    means = np.nan_to_num([interval.mean for interval in found])
    reach = np.nan_to_num([[i.mean - i.low for i in found], [i.high - i.mean for i in found]]).clip(0)
    figure, (axis,) = _figure(1, 11, 0.7 + 0.42 * len(names))
    places = np.arange(len(names))
    colours = [MODEL if name == marked else BOUND if name == "oracle" else OTHER for name in names]
    axis.barh(
        places, means, xerr=reach, color=colours, height=0.66, error_kw={"ecolor": INK, "elinewidth": 1.2, "capsize": 3}
    )
    averaged = np.array([table.mean(name, table.main + TIES_AVERAGED) for name in names])
    tied = np.flatnonzero(averaged - means > TIES_TELL)
    style = {"marker": "D", "s": 26, "facecolor": "white", "edgecolor": INK, "linewidth": 1.2, "zorder": 4}
    axis.scatter(averaged[tied], places[tied], **style)
    for place, interval in zip(places, found, strict=True):
        text = "–" if np.isnan(interval.mean) else f"{interval.mean:.3f}"
        axis.text(
            max(np.nan_to_num(interval.high), averaged[place] if place in tied else 0) + 0.015,
            place,
            text,
            va="center",
            fontsize=10,
        )
    axis.set_yticks(places, names, color=INK)
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlim(0, 1.08)
    axis.set_xticks(np.linspace(0, 1, 6))
    key = ", ◇ with ties averaged instead of worst first" if len(tied) else ""
    axis.set_xlabel(f"{title(table.main)}, {table.level:.0%} interval{key}")
    return _data_uri(figure)


def _figure(panels: int, width: float, height: float) -> tuple[Any, list[Any]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # a figure of its own, not pyplot's: the user's back end and figures stay as they are
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, list(np.atleast_1d(figure.subplots(1, panels)))


def _data_uri(figure: Any) -> str:
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of the font measured with, not of the reader's
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode("ascii")
