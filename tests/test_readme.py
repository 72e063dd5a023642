"""The READMEs say what is true: their example runs, their commands and links exist."""

import re
from pathlib import Path

import pytest

from tfmmrank.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "README.zh-CN.md"]
PAGES = [*READMES, *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md")))]


def code(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


def test_the_example_runs(tmp_path, monkeypatch, capsys, uncompiled):
    from tfmmrank.data.demo_shop import make_demo_shop

    make_demo_shop(tmp_path / "shop", items=150, queries=40)
    monkeypatch.chdir(tmp_path)
    (example,) = code("README.md", "python")
    assert "epochs=10" in example
    exec(compile(example.replace("epochs=10", "epochs=1"), "README.md", "exec"), {})
    printed = capsys.readouterr().out.strip().splitlines()[-1]
    assert re.match(r"RankedItem\(item_id='i\d{5}', score=-?\d+\.\d+, known=True\)", printed)


def test_both_languages_show_the_same_code():
    assert code("README.md", "python") == code("README.zh-CN.md", "python")


@pytest.mark.parametrize("page", READMES)
def test_commands_exist(page):
    named = re.findall(r"^tfmmrank ([\w-]+)", "\n".join(code(page, "sh")), re.MULTILINE)
    assert named
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    file = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text("utf-8")):
        if "://" not in target:
            assert (file.parent / target).exists(), f"{page} links to {target}"


def test_recipes_page_tower_runs():
    import numpy as np

    import tfmmrank
    from tfmmrank.stack import tf

    names: dict = {}
    exec(compile(code("docs/recipes.md", "python")[0], "docs/recipes.md", "exec"), names)
    tower = names["LengthTower"](["title"], dim=4, name="length")
    tokens = tower(tower.preprocess({"title": tf.constant(["帽子", ""])}))
    assert tokens.values.shape == (2, 1, 4)
    assert np.array_equal(tokens.mask.numpy(), [[True], [False]])
    assert tfmmrank.towers.towers.name_of(names["LengthTower"]) == "length"


@pytest.mark.parametrize("page", READMES)
def test_figures_have_their_place(page):
    from benchmarks.pages import READMES as LANGUAGES
    from benchmarks.pages import demo_table

    text = (ROOT / page).read_text("utf-8")
    assert text.index("<!-- figures: begin -->") < text.index("<!-- figures: end -->")
    systems = ["oracle", "model", "text_only", "image_only", "behaviour_only", "bm25", "popularity", "random"]
    found = {
        "ndcg@10": {name: 1 - place / 10 for place, name in enumerate(systems)},
        "intervals": {name: [0.1, 0.2] for name in systems},
        "queries": {"used": 7, "skipped": 1}, "seconds": 12.0, "peak_memory_mb": 99.0,
        "grpc_matches": True, "grpc": {"queries": 5}, "seed": 3, "machine": "2 CPU cores", "date": "2026-11-21",
    }  # fmt: skip
    table = demo_table(found, LANGUAGES[page])
    assert table.count("0.100 – 0.200") == 8
    assert "0.900" in table.splitlines()[3]
    with pytest.raises(ValueError, match="did not match"):
        demo_table({**found, "grpc_matches": False}, LANGUAGES[page])
