"""Writes figures into the READMEs and docs/, so that they are what a command printed.

Run as ``python -m benchmarks.pages`` after ``make demo``, ``python -m benchmarks`` or ``python -m benchmarks.serving``.
A table stands between comments ``NAME: begin`` and ``NAME: end``, and stays as it is where figures are missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfmmrank.evaluation.metrics import TIES_AVERAGED
from tfmmrank.evaluation.tables import p_text

ROOT = Path(__file__).resolve().parents[1]
READMES = {"README.md": 0, "README.zh-CN.md": 1}  # and their language
QUALITY, SERVING = "docs/quality.md", "docs/serving.md"
_DEMO_ROWS = {
    "oracle": ("the truth", "真实相关性（上限）"),
    "model": ("**text + picture + behaviour**", "**文本 + 图片 + 行为**"),
    "text_only": ("text only", "仅文本"),
    "image_only": ("picture only", "仅图片"),
    "behaviour_only": ("behaviour only", "仅行为"),
    "bm25": ("BM25", "BM25"),
    "popularity": ("popularity", "热度"),
    "random": ("random order", "随机排序"),
}
_DEMO = (
    (
        "| ranking by | NDCG@10 | 95% interval |",
        "{used} test queries used, {skipped} skipped; gain 2^grade − 1, ties ranked worst first. Printed by "
        "`make demo` in {seconds:.0f} s, peak memory {memory:,.0f} MB; scores over gRPC equal `predict` for {asked} "
        "queries. Seed {seed}, {machine}, {date}.",
    ),
    (
        "| 排序依据 | NDCG@10 | 95% 置信区间 |",
        "使用 {used} 个测试查询，跳过 {skipped} 个；增益为 2^等级 − 1，同分时按最差顺序计。"
        "由 `make demo` 输出：用时 {seconds:.0f} 秒，内存峰值 {memory:,.0f} MB；"
        "{asked} 个查询经 gRPC 得到的分数与 `predict` 一致。随机种子 {seed}，{machine}，{date}。",
    ),
)
_REAL = (
    (
        "| data | tfmmrank | LambdaMART | zero-shot encoder | BM25 | test queries (skipped) |",
        "NDCG@10 [95% interval], gain 2^grade − 1, ties ranked worst first (BM25's averaged), mean of {seeds} seeds. "
        "LambdaMART and encoder: the better of their kinds on these lists; p: where the difference from tfmmrank may "
        "be chance (paired randomisation test, 0.05). Every peer, p-value and ablation, and what the recipes were "
        "chosen on: [docs/quality.md](docs/quality.md). Printed by `make bench`, {machine}, {date}.",
    ),
    (
        "| 数据 | tfmmrank | LambdaMART | 零样本编码器 | BM25 | 测试查询（跳过） |",
        "NDCG@10 [95% 置信区间]，增益为 2^等级 − 1，同分时按最差顺序计（BM25 取平均），{seeds} 个随机种子的均值。"
        "LambdaMART 与编码器各取其变体中在这些列表上较好的一个；标有 p 者与 tfmmrank 之差可能出于偶然"
        "（配对随机化检验，0.05）。全部对照、p 值、消融以及配方的选择依据见 "
        "[docs/quality.md](docs/quality.md)。"
        "由 `make bench` 输出，{machine}，{date}。",
    ),
)
_REAL_SETS = {"fashion": "fashion", "crowd": "crowd", "mq2008": "mq2008"}


_SERVED_SECTIONS = {"latency": "serving_latency", "candidates": "serving_candidates"}
_SERVED = (
    "100 candidates by id, MiniLM reading the query: {p50:.1f} ms (p99 {p99:.1f}), one request at a time; 1,000 take "
    "{thousand:.2f} times as long, and raw pictures sent instead of ids, read at 128 pixels, {pictures:.0f} times. "
    "Client and server share the machine. All figures of serving: [docs/serving.md](docs/serving.md). "
    "Printed by `make bench-serving`, {machine}, {date}.",
    "按 ID 对 100 个候选打分，查询由 MiniLM 编码，逐个请求：{p50:.1f} 毫秒（p99 为 {p99:.1f}）；1,000 个候选用时为其 "
    "{thousand:.2f} 倍，不传 ID 而传原始图片（按 128 像素读取）则为 {pictures:.0f} 倍。"
    "客户端与服务端在同一台机器上。全部服务数据见 [docs/serving.md](docs/serving.md)。"
    "由 `make bench-serving` 输出，{machine}，{date}。",
)


def demo_table(found: dict[str, Any], language: int) -> str:
    """The demo shop's table.

    Raises:
        ValueError: when the run's scores over gRPC did not match: such a run is not to be quoted; or when figures are
            missing.
    """
    missing = [key for key in ("ndcg@10", "intervals", "queries", "seed", "machine", "date") if key not in found]
    if missing:
        raise ValueError(f"demo.json: {missing[0]} is missing; run make demo again")
    if not found.get("grpc_matches"):
        raise ValueError("the demo's scores over gRPC did not match predict; mend that before quoting its figures")
    header, caption = _DEMO[language]
    lines = [header, "| --- | ---: | ---: |"]
    for system in sorted(_DEMO_ROWS, key=lambda name: -found["ndcg@10"][name]):
        low, high = found["intervals"][system]
        lines.append(f"| {_DEMO_ROWS[system][language]} | {found['ndcg@10'][system]:.3f} | {low:.3f} – {high:.3f} |")
    numbers = {**found["queries"], "seconds": found["seconds"], "memory": found["peak_memory_mb"]}
    numbers.update(seed=found["seed"], machine=_machine(found["machine"], language), date=found["date"])
    return "\n".join([*lines, "", caption.format(**numbers, asked=found["grpc"]["queries"]), ""])


def real_table(found: dict[str, dict[str, Any]], language: int) -> str:
    """The table of the real data sets, from the sections' results."""
    header, caption = _REAL[language]
    lines = [header, "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, figures in found.items():
        systems, main = figures["systems"], figures["main"]
        model = systems["model"]["metrics"][main]
        peers = [
            _best(systems, main, "lambdamart"),
            _best(systems, main, "zero-shot"),
            _best(systems, main + TIES_AVERAGED, "bm25"),
        ]
        value = f"**{model['mean']:.3f}** [{model['low']:.3f}, {model['high']:.3f}]"
        lines.append(f"| `{name}` | {value} | {' | '.join(peers)} | {model['used']} ({model['skipped']}) |")
    facts = {key: _of_all(found, key) for key in ("machine", "date")}
    seeds = " / ".join(sorted({str(len(section["seeds"])) for section in found.values()}))
    facts["machine"] = _machine(facts["machine"], language)
    return "\n".join([*lines, "", caption.format(**facts, seeds=seeds), ""])


def served_line(found: dict[str, dict[str, Any]], language: int) -> str:
    """How long an answer takes, from two sections' results."""
    latency, candidates = found["latency"], found["candidates"]
    one = latency["figures"]["by id, closed loop, 1 at once"]
    pictures = latency["figures"]["with JPEG bytes, 128 pixels, closed loop, 1 at once"]
    line = _SERVED[language].format(
        p50=one["p50 ms"][0],
        p99=one["p99 ms"][0],
        thousand=candidates["figures"]["1,000 candidates"]["times as long as 100"][0],
        pictures=pictures["times as long as by id"][0],
        machine=_machine(latency["machine"], language),
        date=latency["date"],
    )
    return f"{line}\n"


def _machine(told: str, language: int) -> str:
    return told.replace(" CPU cores", " 个 CPU 核") if language else told


def _of_all(found: dict[str, dict[str, Any]], key: str) -> str:
    """What the sections say, each thing once."""
    return ", ".join(sorted({str(section[key]) for section in found.values()}))


def _best(systems: dict[str, Any], metric: str, kind: str) -> str:
    """The best system of a kind: its mean, and p where it is 0.05 or more."""
    means = {name: row["metrics"][metric]["mean"] for name, row in systems.items() if name.startswith(kind)}
    if not means:
        return "–"
    best = max(means, key=lambda name: means[name])
    p = systems[best]["difference"]["p_value"]
    return f"{means[best]:.3f}" + (f" (p {p:.2f})" if p >= 0.05 else "")


def systems_table(found: dict[str, Any]) -> str:
    """All systems of a section, best first, with differences from the reference and p-values."""
    reference = found["reference"]
    lines = [
        f"| system | NDCG@10 [95%] | − {reference} | p | p (Holm) | ties averaged |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    if "groups" in found:
        lines.append(_row(found, reference))
        for part, names in found["groups"].items():
            lines += [
                f"| *{found['titles'][part]}* | | | | | |",
                *(_row(found, name) for name in _best_first(found, names)),
            ]
    else:
        lines += [_row(found, name) for name in _best_first(found, found["systems"])]
    return "\n".join([*lines, "", "\n\n".join(_notes(found)), ""])


def _notes(found: dict[str, Any]) -> Iterator[str]:
    """What a table's numbers rest on, and what else was found."""
    main, reference = found["main"], found["reference"]
    values = found["systems"][reference]["metrics"][main]
    yield (
        f"{found['dataset']}: {values['convention']}; {values['used']} queries used, {values['skipped']} skipped. "
        f"Brackets: {found['level']:.0%} bootstrap interval over queries. p: two-sided paired randomisation test "
        f"against {reference}, {found['resamples']:,} flips of signs; Holm's for {len(found['systems']) - 1} "
        f"comparisons. Seeds {', '.join(map(str, found['seeds']))}, {found['machine']}, {found['date']}."
    )
    if len(found["seeds"]) > 1:
        each = (f"{name} {', '.join(f'{value:.3f}' for value in some)}" for name, some in found["by_seed"].items())
        yield (
            "A query's value is the mean of one training a seed, of what learns; intervals and p do not hold the "
            f"differences between trainings. By seed: {'; '.join(each)}."
        )
    else:
        yield "One training each: intervals and p do not hold the differences between trainings with other seeds."
    if found.get("chosen"):
        first = f"Chosen on validation lists, seed {found['seeds'][0]}"
        yield f"{first}: {'; '.join(f'{name}: {value}' for name, value in found['chosen'].items())}."
    if "new_words" in found:
        new = found["new_words"]
        yield (
            f"{new['of'] - new['queries']} of the {new['of']} test queries have the words of a training query, in "
            f"another order or number. Of the {new['queries']} others alone: {_figures(new['systems'])}."
        )
    if "list_length" in found:
        yield f"Lists hold {found['list_length']:.1f} items on average."
    if "slices" in found:
        yield f"The model's NDCG@10 by part of the queries: {_figures(found['slices'])}."
    if found.get("left_out"):
        yield f"Left out: {'; '.join(f'{name}, because {why}' for name, why in found['left_out'].items())}."
    if "mean_of_folds" in found:
        yield (
            "Mean of the folds' means, by the NDCG above and not by LETOR's script, which counts otherwise: "
            f"{_figures(found['mean_of_folds'])}."
        )


def _figures(found: dict[str, float]) -> str:
    return "; ".join(f"{name} {value:.3f}" for name, value in found.items())


def _best_first(found: dict[str, Any], names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: -found["systems"][name]["metrics"][found["main"]]["mean"])


def _row(found: dict[str, Any], name: str) -> str:
    row, main = found["systems"][name], found["main"]
    values, difference, averaged = row["metrics"][main], row["difference"], row["metrics"].get(main + TIES_AVERAGED)
    cells = [f"**{name}**" if name == found["reference"] else name]
    cells.append(f"{values['mean']:.3f} [{values['low']:.3f}, {values['high']:.3f}]")
    if difference is None:
        cells += ["", "", ""]
    else:
        cells.append(f"{difference['mean']:+.3f}")
        floor = difference["p_value"] is not None and difference["p_value"] <= difference["p_floor"]
        cells += ["" if p is None else p_text(p, floor) for p in (difference["p_value"], difference["p_holm"])]
    cells.append(f"{averaged['mean']:.3f}" if averaged else "")
    return f"| {' | '.join(cells)} |"


def figures_table(found: dict[str, Any]) -> str:
    """A section's figures, a line each."""
    seeds = ", ".join(map(str, found["seeds"]))
    taken = f"Medians of {found['rounds']} rounds in which both ways take turns. " if "rounds" in found else ""
    caption = f"{taken}Seed {seeds}, {found['machine']}, {found['date']}, {found['minutes']:.0f} minutes."
    return "\n".join([*_long(list(found["figures"].items())), "", caption, ""])


def serving_table(found: dict[str, Any]) -> str:
    """A section's figures: rows that follow one another with the same figures are lines of one table."""
    tables: list[list[str]] = []
    alone: list[tuple[str, dict[str, Any]]] = []  # rows that have no such neighbours: a line a figure
    for figures, grouped in itertools.groupby(found["figures"].items(), key=lambda row: tuple(row[1])):
        rows = list(grouped)
        if len(rows) == 1:
            alone += rows
            continue
        tables += [_long(alone), _wide(figures, rows)]
        alone = []
    tables.append(_long(alone))
    values = [value for row in found["figures"].values() for value in row.values()]
    ranges = "Medians of several rounds [least, greatest], unless a figure's name says otherwise. "
    caption = ranges if any(isinstance(value, list) for value in values) else ""
    caption += f"{found['machine']}, {found['date']}, {found['minutes']:.0f} minutes."
    return "\n\n".join(["\n".join(lines) for lines in tables if lines] + [caption]) + "\n"


def _long(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    lines = ["| what | figure | value |", "| --- | --- | ---: |"] if rows else []
    for what, figures in rows:
        for number, (figure, value) in enumerate(figures.items()):
            lines.append(f"| {what if number == 0 else ''} | {figure} | {_figure(value)} |")
    return lines


def _wide(figures: Iterable[str], rows: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    names = list(figures)
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    return lines + [f"| {what} | {' | '.join(_figure(row[name]) for name in names)} |" for what, row in rows]


def _figure(value: Any) -> str:
    """A number to three digits or three decimals, a count whole, a value with the range around it, yes or no."""
    if value is None:
        return ""
    if isinstance(value, list):
        middle, low, high = map(_figure, value)
        return f"{middle} [{low}, {high}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


def fill(text: str, block: str, table: str) -> str:
    """A page with the table between a block's comments."""
    place = re.compile(rf"(<!-- {re.escape(block)}: begin -->\n).*?(<!-- {re.escape(block)}: end -->)", re.DOTALL)
    return place.sub(lambda found: found[1] + table + found[2], text)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--demo", type=Path, default=ROOT / "demo" / "demo.json")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    results = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(options.results.glob("*.json"))}
    real, served = (_all_of(results, sections) for sections in (_REAL_SETS, _SERVED_SECTIONS))
    demo = json.loads(options.demo.read_text("utf-8")) if options.demo.is_file() else None
    for name, language in READMES.items():
        _rewrite(ROOT / name, "figures", demo, lambda found, language=language: demo_table(found, language))
        _rewrite(ROOT / name, "real figures", real, lambda found, language=language: real_table(found, language))
        _rewrite(ROOT / name, "served", served, lambda found, language=language: served_line(found, language))
    for section, found in results.items():
        if section.startswith("serving_"):
            _rewrite(ROOT / SERVING, section, found, serving_table)
        else:
            _rewrite(ROOT / QUALITY, section, found, systems_table if "systems" in found else figures_table)


def _all_of(results: dict[str, Any], sections: dict[str, str]) -> dict[str, Any]:
    """Sections' results by another name; nothing where one is missing, or a table would lose the others' rows."""
    whole = all(section in results for section in sections.values())
    return {name: results[section] for name, section in sections.items()} if whole else {}


def _rewrite(page: Path, block: str, found: Any, table: Callable[[Any], str]) -> None:
    text = page.read_text("utf-8")
    if not found or f"<!-- {block}: begin -->" not in text:
        print(f"{page.name}: {block}: left as it is", file=sys.stderr)
        return
    page.write_text(fill(text, block, table(found)), "utf-8")


if __name__ == "__main__":
    main()
