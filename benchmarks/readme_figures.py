"""Writes the figures of a demo run into the READMEs, so that they are what a command printed.

Run as ``python -m benchmarks.readme_figures [demo/demo.json]`` after ``make demo``. The tables stand between the
comments ``figures: begin`` and ``figures: end``.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_PLACE = re.compile(r"(<!-- figures: begin -->\n).*?(<!-- figures: end -->)", re.DOTALL)
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme_figures", description=__doc__)
    parser.add_argument("result", nargs="?", type=Path, default=ROOT / "demo" / "demo.json")
    found = json.loads(parser.parse_args().result.read_text("utf-8"))
    for name in _WORDS:
        file = ROOT / name
        table = figures_table(found, name)
        file.write_text(
            _PLACE.sub(lambda place, table=table: place[1] + table + place[2], file.read_text("utf-8")), "utf-8"
        )


if __name__ == "__main__":
    main()
