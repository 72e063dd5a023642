"""Writes figures into the READMEs, so that they are what a command printed.

Run as ``python -m benchmarks.readme_figures [demo/demo.json] [runs/bench/results.json]`` after ``make demo`` and
``python -m benchmarks``. The tables stand between the comments ``NAME: begin`` and ``NAME: end``.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_ROWS = {
    "oracle": ("the truth", "真实相关性（上限）"),
    "model": ("**text + picture + behaviour**", "**文本 + 图片 + 行为**"),
    "text_only": ("text only", "仅文本"),
    "image_only": ("picture only", "仅图片"),
    "behaviour_only": ("behaviour only", "仅行为"),
    "bm25": ("BM25", "BM25"),
    "popularity": ("popularity", "热度"),
    "random": ("random order", "随机排序"),
}
_WORDS = {
    "README.md": (
        0,
        "| ranking by | NDCG@10 | 95% interval |",
        "{used} test queries used, {skipped} skipped; gain 2^grade − 1, ties ranked worst first. Printed by "
        "`make demo` in {seconds:.0f} s, peak memory {memory:,.0f} MB; scores over gRPC equal `predict` "
        "for {asked} queries.",
    ),
    "README.zh-CN.md": (
        1,
        "| 排序依据 | NDCG@10 | 95% 置信区间 |",
        "使用 {used} 个测试查询，跳过 {skipped} 个；增益为 2^等级 − 1，同分时按最差顺序计。"
        "由 `make demo` 输出：用时 {seconds:.0f} 秒，内存峰值 {memory:,.0f} MB；"
        "{asked} 个查询经 gRPC 得到的分数与 `predict` 一致。",
    ),
}
_REAL_WORDS = {
    "README.md": (
        "| data | model | BM25 | random order | test queries |",
        "{used} ({skipped} skipped)",
        "NDCG@10 [95% interval], gain 2^grade − 1, the model's ties ranked worst first, BM25's averaged: it knows no "
        "word of most items of `fashion`. Towers trained from scratch, recipes chosen on validation. Printed by "
        "`make bench`, seed {seed}, {machine}, {date}.",
    ),
    "README.zh-CN.md": (
        "| 数据 | 模型 | BM25 | 随机排序 | 测试查询 |",
        "{used}（跳过 {skipped}）",
        "NDCG@10 [95% 置信区间]，增益为 2^等级 − 1；模型同分时按最差顺序计，BM25 同分时取平均，因为 `fashion` 中"
        "多数商品与查询没有共同的词。各塔从零训练，配方只在验证集上选择。"
        "由 `make bench` 输出，随机种子 {seed}，{machine}，{date}。",
    ),
}


def figures_table(found: dict[str, Any], readme: str) -> str:
    """The table in the README's language.

    Raises:
        ValueError: when the run's scores over gRPC did not match: such a run is not to be quoted.
    """
    if not found.get("grpc_matches"):
        raise ValueError("the demo's scores over gRPC did not match predict; mend that before quoting its figures")
    language, header, caption = _WORDS[readme]
    lines = [header, "| --- | ---: | ---: |"]
    for system in sorted(_ROWS, key=lambda name: -found["ndcg@10"][name]):
        low, high = found["intervals"][system]
        lines.append(f"| {_ROWS[system][language]} | {found['ndcg@10'][system]:.3f} | {low:.3f} – {high:.3f} |")
    numbers = {**found["queries"], "seconds": found["seconds"], "memory": found["peak_memory_mb"]}
    return "\n".join([*lines, "", caption.format(**numbers, asked=found["grpc"]["queries"]), ""])


def real_table(found: dict[str, Any], readme: str) -> str:
    """The table of the real data sets in the README's language."""
    header, queries, caption = _REAL_WORDS[readme]
    lines = [header, "| --- | ---: | ---: | ---: | ---: |"]
    for name, figures in found.items():
        low, high = figures["interval"]
        model = f"**{figures['ndcg@10']['model']:.3f}** [{low:.3f}, {high:.3f}]"
        bm25 = figures["bm25_ties_averaged"]
        lines.append(
            f"| `{name}` | {model} | {'–' if bm25 is None else f'{bm25:.3f}'} | {figures['ndcg@10']['random']:.3f} | "
            f"{queries.format(**figures['queries'])} |"
        )
    return "\n".join([*lines, "", caption.format(**next(iter(found.values()))), ""])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme_figures", description=__doc__)
    parser.add_argument("demo", nargs="?", type=Path, default=ROOT / "demo" / "demo.json")
    parser.add_argument("real", nargs="?", type=Path, default=ROOT / "runs" / "bench" / "results.json")
    options = parser.parse_args()
    demo, real = (json.loads(file.read_text("utf-8")) for file in (options.demo, options.real))
    for name in _WORDS:
        text = (ROOT / name).read_text("utf-8")
        for block, table in (("figures", figures_table(demo, name)), ("real figures", real_table(real, name))):
            place = re.compile(rf"(<!-- {block}: begin -->\n).*?(<!-- {block}: end -->)", re.DOTALL)
            text = place.sub(lambda found, table=table: found[1] + table + found[2], text)
        (ROOT / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
