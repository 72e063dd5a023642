"""How well the example recipes rank real data, beside what people use today, on the same lists; and training speed.

Run as ``python -m benchmarks [SECTION ...]``; the sections are those of ``SECTIONS``. Each prints its tables and
writes ``benchmarks/results/SECTION.json``; killed, the same command goes on with the trainings that are left.
``benchmarks.pages`` then writes those figures into docs/quality.md and the READMEs. Recipes were chosen on validation
lists.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.examples import (
    ROOT,
    data_folder,
    hold_out_items,
    load_example,
    query_folds,
    same_words,
    without_pictures,
    without_towers,
)
from tfmmrank.atomic import replace_file, write_text

RESULTS = ROOT / "benchmarks" / "results"
FOLDS = 5
#: What a single-modality ranker leaves out, by example.
SINGLE = {
    "demo": {
        "text only": ("image", "colours", "attributes", "behaviour"),
        "picture only": ("title", "attributes", "behaviour"),
        "text and picture": ("attributes", "behaviour"),
    },
    "fashion": {"text only": ("image", "colours"), "picture only": ("title", "title_words")},
    "crowd": {"title only": ("description", "description_words")},
}
_HELD_OUT, _WITHOUT_PICTURE = 0.2, 0.5
_ROUNDS = 9  # of timing
_STAMP = "bench.sha256"  # in a run's folder: what it was trained by
#: Of the package, what a training's result may depend on.
_TRAINS = ("data", "encoders", "towers", "fusion", "matching", "objectives", "training", ".")
_LIBRARIES = ("tensorflow", "tf-keras", "tensorflow-text", "tensorflow-ranking", "keras-nlp", "lightgbm", "numpy")
_PEERS = "peers.npz"  # in a run's folder: their scores, and what they chose


class Measured(NamedTuple):
    """Systems on test lists.

    Attributes:
        tables: one a seed.
        ranker: of the first recipe and seed; None of a fold.
        chosen: what the first seed's peers chose on validation lists, by system.
    """

    tables: list[Any]
    ranker: Any
    chosen: dict[str, str]


class Bench:
    """Trains, remembers what is trained, and measures.

    Args:
        out: folder of datasets and runs.
        seeds: every ranker is trained with each of them, and its NDCG is the mean.
        progress: whether to show progress bars.
    """

    def __init__(self, out: Path, seeds: Sequence[int] = (0, 1, 2), progress: bool = True) -> None:
        self.out, self.seeds, self.progress = out, list(seeds), progress

    def prepare(self, recipe: Any, name: str) -> Any:
        """The recipe's dataset under ``out/data/NAME``; what encoders made of unchanged items is kept."""
        from tfmmrank.data import prepare

        return prepare(recipe, self.out / "data" / name, progress=False)

    def train(self, recipe: Any, data: Any, run: str, seed: int) -> Any:
        """A ranker trained by a recipe, into ``out/runs/RUN-SEED``; done before by the same code, it is read."""
        from tfmmrank.training import OtherTraining, build_ranker, fit

        folder = self.out / "runs" / f"{run}-{seed}"
        recipe = recipe.with_train(seed=seed)
        started = time.monotonic()
        stamp = _digest(recipe)
        if not (folder / _STAMP).is_file() or (folder / _STAMP).read_text("utf-8") != stamp:
            _begin(folder, stamp)
        ranker = build_ranker(recipe, data, self.progress)
        try:
            history = fit(ranker, recipe.train, data, folder, progress=False)
        except OtherTraining:  # of another dataset
            _begin(folder, stamp)
            history = fit(ranker, recipe.train, data, folder, progress=False)
        best = max(history["val_ndcg@10"])
        print(f"   {folder.name}: valid {best:.4f}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        return ranker

    def table(self, data: Any, recipes: Mapping[str, Any], run: str, peers: str | None = "all") -> Measured:
        """Rankers by recipe, and peers, on the test lists; all of every seed.

        Args:
            data: the dataset.
            recipes: by system; the first is the reference of differences.
            run: begins the runs' names.
            peers: what ``fit_baselines`` takes as ``systems``; None: no peers.
        """
        from tfmmrank.evaluation import compare, scores_of

        first, tables, chosen = None, [], {}
        for seed in self.seeds:
            scores = {}
            for system, recipe in recipes.items():
                ranker = self.train(recipe, data, f"{run}-{system.replace(' ', '-')}", seed)
                first = first if first is not None else ranker
                scores[system] = scores_of(ranker, data, "test")
            if peers is not None:
                found, settings = self._peers(data, first, seed, run, peers)
                scores.update(found)
                chosen = chosen or settings
            tables.append(compare(data, "test", scores))
        return Measured(tables, first, chosen)

    def _peers(
        self, data: Any, ranker: Any, seed: int, run: str, systems: str
    ) -> tuple[dict[str, list[np.ndarray]], dict[str, str]]:
        """The peers' scores of the test lists, and what those that search chose; done before, they are read."""
        from tfmmrank.evaluation import fit_baselines
        from tfmmrank.evaluation.scoring import split_lists

        folder, lists = self.out / "runs" / f"{run}-peers-{systems}-{seed}", data.lists("test")
        digests = [data.lists(split).digest() for split in data.splits]
        stamp = _code([json.dumps(ranker.get_config(), indent=1), *digests], (*_TRAINS, "evaluation"))
        if not (folder / _PEERS).is_file() or (folder / _STAMP).read_text("utf-8") != stamp:
            _begin(folder, stamp)
            scores, chosen = {}, {}
            for peer in fit_baselines(data, ranker, seed, progress=self.progress, systems=systems):
                scores[peer.name] = np.concatenate(peer.scores(data, "test"))
                if hasattr(peer, "chosen"):
                    chosen[peer.name] = str(peer.chosen)
            with replace_file(folder / _PEERS) as aside:
                np.savez(aside, chosen=json.dumps(chosen), **{f"of {name}": array for name, array in scores.items()})
        with np.load(folder / _PEERS) as kept:
            found = {name[3:]: split_lists(lists, kept[name]) for name in kept.files if name.startswith("of ")}
            return found, json.loads(str(kept["chosen"]))


def _digest(recipe: Any) -> str:
    """Changes with a recipe, and with the code that trains by it."""
    model, train = recipe.model.model_dump(mode="json"), recipe.train.model_dump(mode="json")
    return _code([json.dumps([model, train], sort_keys=True)], _TRAINS)


def _code(parts: Sequence[str], rooms: Sequence[str]) -> str:
    """Changes with the parts, with the package's code in these rooms, and with the libraries that it rests on."""
    versions = [f"{name} {version(name)}" for name in _LIBRARIES]
    digest = hashlib.sha256("\n".join([*versions, *parts]).encode())
    for file in sorted(file for room in rooms for file in (ROOT / "tfmmrank" / room).glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _begin(folder: Path, stamp: str) -> None:
    """Empties a run's folder for a training by other code, by another recipe or on other data."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _STAMP).write_text(stamp, "utf-8")


def mean_table(tables: Sequence[Any]) -> Any:
    """One table of several of the same systems, each query's metrics being their mean."""
    from tfmmrank.evaluation.metrics import PerQuery
    from tfmmrank.evaluation.tables import make_table

    first = tables[0]
    values: dict[str, dict[str, Any]] = {}
    for system in first.rows:
        values[system] = {}
        for metric in first.metric_names:
            some = first.per_query(system, metric)
            mean = np.mean([table.per_query(system, metric).values for table in tables], axis=0)
            values[system][metric] = PerQuery(mean, some.name, some.convention)
    return make_table(first.dataset, first.split, values, first.query_ids, first.reference)


def _found(tables: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """The mean of the seeds' tables, printed; and as JSON values, with each seed's mean of what a seed changes."""
    table = mean_table(tables)
    print(table, flush=True)
    by_seed = {system: [float(each.mean(system)) for each in tables] for system in table.rows}
    changing = {system: means for system, means in by_seed.items() if len(set(means)) > 1}
    return table, {**table.to_dict(), "by_seed": changing}


def demo(bench: Bench) -> dict[str, Any]:
    """The made-up shop of ``tfmmrank demo``: peers, single modalities, and parts of the queries."""
    from tfmmrank.data.demo_shop import make_demo_shop
    from tfmmrank.evaluation import query_slices
    from tfmmrank.schema import Recipe

    recipe = Recipe.load(make_demo_shop(bench.out / "tables" / "demo", seed=0))
    data = bench.prepare(recipe, "demo")
    alone = {system: without_towers(recipe, dropped) for system, dropped in SINGLE["demo"].items()}
    measured = bench.table(data, {"model": recipe, **alone}, "demo")
    table, found = _found(measured.tables)
    slices = {name: part["systems"]["model"].mean for name, part in table.sliced(query_slices(data, "test")).items()}
    return {**found, "chosen": measured.chosen, "slices": slices}


def fashion(bench: Bench) -> dict[str, Any]:
    """Pictures, titles without colour, type and gender: peers, single modalities, and what is asked in new words."""
    found, table = _example(bench, "fashion")
    asked_before = same_words("fashion")
    new = np.array([query not in asked_before for query in table.query_ids])
    means = {system: interval.mean for system, interval in table.sliced({"new": new})["new"]["systems"].items()}
    return {**found, "new_words": {"queries": int(new.sum()), "of": len(new), "systems": means}}


def crowd(bench: Bench) -> dict[str, Any]:
    """Human judgements of few queries: peers, and the title alone."""
    return _example(bench, "crowd")[0]


def _example(bench: Bench, name: str) -> tuple[dict[str, Any], Any]:
    recipe = load_example(name)
    data = bench.prepare(recipe, name)
    alone = {system: without_towers(recipe, dropped) for system, dropped in SINGLE[name].items()}
    measured = bench.table(data, {"model": recipe, **alone}, name)
    table, found = _found(measured.tables)
    _check_served(bench, name, measured.ranker, data)
    return {**found, "chosen": measured.chosen}, table


def _check_served(bench: Bench, name: str, ranker: Any, data: Any) -> None:
    """Raises ValueError where the exported model, asked over gRPC, gives something else than ``predict``."""
    from tfmmrank.cli.demo import ask_over_grpc
    from tfmmrank.evaluation import scores_of
    from tfmmrank.export import export

    shutil.rmtree(bench.out / "models" / name, ignore_errors=True)
    export(ranker, data, bench.out / "models" / name, progress=bench.progress)
    if not ask_over_grpc(bench.out / "models" / name, data, scores_of(ranker, data, "test")).matches:
        raise ValueError(f"{name}: scores over gRPC are not those of predict; mend that before quoting any")


def crowd_folds(bench: Bench) -> dict[str, Any]:
    """Five-fold cross-validation by query over all of crowd's queries, against the zero-shot encoder."""
    parts = []
    for fold, queries in enumerate(query_folds("crowd", FOLDS, 0, bench.out / "tables" / "crowd_folds")):
        recipe = load_example("crowd", {"data.queries.table": str(queries)})
        data = bench.prepare(recipe, "crowd_folds")  # in one folder, so that no fold encodes the items again
        parts.append(_fold(bench, data, {"model": recipe}, f"crowd_fold{fold}", peers="simple"))
    return _found(_pooled(parts, "crowd, five folds"))[1]


def _fold(bench: Bench, data: Any, recipes: Mapping[str, Any], run: str, peers: str = "all") -> Measured:
    """One fold's tables; its rankers are let go, or those of all folds would fill the memory."""
    from tfmmrank.training.session import fresh_session

    with fresh_session():
        return bench.table(data, recipes, run, peers)._replace(ranker=None)


def _pooled(folds: Sequence[Measured], dataset: str) -> list[Any]:
    """Each seed's table of all folds' queries."""
    from tfmmrank.evaluation import pool

    return [pool(tables, dataset) for tables in zip(*(fold.tables for fold in folds), strict=True)]


def mq2008(bench: Bench) -> dict[str, Any]:
    """LETOR's MQ2008 in its five official folds, with list context and without."""
    parts = []
    for fold in range(FOLDS):
        part = [str(data_folder() / "mq2008" / f"S{(fold + i) % FOLDS + 1}.txt") for i in range(FOLDS)]
        files = {"train": part[:3], "valid": part[3:4], "test": part[4:]}
        recipe = load_example("mq2008", {"data.labels.files": files})
        data = bench.prepare(recipe, f"mq2008_fold{fold + 1}")
        without = load_example("mq2008", {"data.labels.files": files, "model.context": None})
        systems = {"model": recipe, "without list context": without}
        parts.append(_fold(bench, data, systems, f"mq2008_fold{fold + 1}"))
    table, found = _found(_pooled(parts, "mq2008, five folds"))
    means = {
        system: float(np.mean([each.mean(system) for part in parts for each in part.tables])) for system in table.rows
    }
    chosen = {f"{peer}, fold {fold}": what for fold, part in enumerate(parts, 1) for peer, what in part.chosen.items()}
    return {**found, "chosen": chosen, "mean_of_folds": means}


def unseen(bench: Bench) -> dict[str, Any]:
    """Fashion with a fifth of its items held out: lists of them alone, ranked by who has seen them and who has not."""
    from tfmmrank.evaluation import compare, fit_baselines, scores_of

    judgements = hold_out_items("fashion", _HELD_OUT, 0, bench.out / "tables" / "unseen")
    recipe, whole = load_example("fashion", {"data.labels.table": str(judgements)}), load_example("fashion")
    tables = []
    for seed in bench.seeds:
        scores = {}
        seen = bench.train(whole, bench.prepare(whole, "fashion"), "fashion-model", seed)
        data = bench.prepare(recipe, "unseen")
        scores["items seen in training"] = scores_of(seen, data, "test")
        scores["items never seen"] = scores_of(bench.train(recipe, data, "unseen-model", seed), data, "test")
        for other in fit_baselines(data, seed=seed):
            if other.name in ("random", "bm25"):
                scores[other.name] = other.scores(data, "test")
        tables.append(compare(data, "test", scores))
    return {**_found(tables)[1], "list_length": float(np.diff(data.lists("test").offsets).mean())}


def missing(bench: Bench) -> dict[str, Any]:
    """Fashion with half of the pictures gone at test time, ranked by the ranker that was trained with all."""
    from tfmmrank.evaluation import compare, scores_of

    items = without_pictures("fashion", _WITHOUT_PICTURE, 0, bench.out / "tables" / "missing")
    folder = str(data_folder() / "fashion")
    recipe = load_example("fashion")
    half = load_example("fashion", {"data.items.table": str(items), "data.items.image_root": folder})
    text_only = without_towers(recipe, SINGLE["fashion"]["text only"])
    tables = []
    for seed in bench.seeds:
        data = bench.prepare(recipe, "fashion")
        ranker = bench.train(recipe, data, "fashion-model", seed)
        text = bench.train(text_only, data, "fashion-text-only", seed)
        scores = {"all pictures": scores_of(ranker, data, "test"), "text only": scores_of(text, data, "test")}
        scores["half of the pictures"] = scores_of(ranker, bench.prepare(half, "missing"), "test")
        tables.append(compare(data, "test", scores))
    return _found(tables)[1]


def ablation(bench: Bench) -> dict[str, Any]:
    """What each modality and each fusion brings fashion's ranker, of one seed."""
    from tfmmrank.evaluation import ablate
    from tfmmrank.runs import keep_recipe

    recipe, seed = load_example("fashion"), bench.seeds[0]
    data = bench.prepare(recipe, "fashion")
    ranker = bench.train(recipe, data, "fashion-model", seed)
    run = bench.out / "runs" / f"fashion-model-{seed}"
    keep_recipe(recipe.with_train(seed=seed), run)
    table = ablate(run, data, ranker=ranker, say=lambda text: print(f"   {text}", file=sys.stderr, flush=True))
    print(table, flush=True)
    return {**table.to_dict(), "titles": table.titles, "seeds": [seed]}


def speed(bench: Bench) -> dict[str, Any]:
    """What training's speed rests on, on a shop made up in memory; see ``benchmarks.training_speed``."""
    from benchmarks.training_speed import measure

    return {"figures": measure(rounds=_ROUNDS), "rounds": _ROUNDS, "seeds": [0]}


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "demo": demo,
    "fashion": fashion,
    "crowd": crowd,
    "crowd_folds": crowd_folds,
    "mq2008": mq2008,
    "unseen": unseen,
    "missing": missing,
    "ablation": ablation,
    "speed": speed,
}
_WITHOUT_DATA = {"demo", "speed"}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"which (default: {' '.join(SECTIONS)})")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="of datasets and runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of a JSON file a section")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f'no section "{name}"; sections: {", ".join(SECTIONS)}')
    chosen = options.sections or list(SECTIONS)
    if not _WITHOUT_DATA.issuperset(chosen) and not data_folder().is_dir():
        sys.exit(f"benchmarks: the evaluation data is not at {data_folder()}; set TFMMRANK_DATA to its folder")
    bench = Bench(options.out, options.seeds, not options.quiet)
    options.results.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        started = time.monotonic()
        found = {
            "seeds": bench.seeds,
            **SECTIONS[name](bench),
            "machine": f"{os.cpu_count()} CPU cores",
            "date": date.today().isoformat(),
            "minutes": round((time.monotonic() - started) / 60, 1),
        }
        write_text(options.results / f"{name}.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
