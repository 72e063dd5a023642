"""The report stands alone, escapes what it shows, and says what its numbers rest on."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tfmmrank.evaluation import AblationTable, compare, fit_baselines, labels_of, metrics, write_report
from tfmmrank.evaluation.charts import history_chart, systems_chart
from tfmmrank.evaluation.metrics import PerQuery
from tfmmrank.evaluation.report import _FOLDERS
from tfmmrank.evaluation.showcase import choose_queries, thumbnail
from tfmmrank.evaluation.verdict import judge

HISTORY = {
    "loss": [2.0, 1.0, 0.5],
    "val_loss": [2.0, 1.5, 1.4],
    "ndcg@10": [0.4, 0.6, 0.7],
    "val_ndcg@10": [0.4, 0.6, 0.5],
}


def report(data, out, history=HISTORY, **options):
    scores = {baseline.name: baseline.scores(data, "test") for baseline in fit_baselines(data)}
    table = compare(data, "test", scores, resamples=500)
    first = next(iter(scores))
    before = ("bm25", scores["bm25"]) if "bm25" in scores else (first, scores[first])
    return write_report(
        out, title="A <shop>", table=table, history=history, data=data, split="test", before=before,
        after=("oracle", scores["oracle"]), **options,
    )  # fmt: skip


class Page(HTMLParser):
    """Tags that must close, and every address a page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.addresses, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def demo_page(demo_data, tmp_path_factory):
    return report(demo_data, tmp_path_factory.mktemp("report"), queries=5, notes=["One note.", "Another."]).read_text(
        "utf-8"
    )


def test_the_page_stands_alone(demo_page):
    page = Page(demo_page)
    assert page.open == []
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "http://" not in demo_page
    assert "https://" not in demo_page
    assert "script" not in page.tags
    assert "link" not in page.tags


def test_what_the_page_shows(demo_page, demo_data):
    assert demo_page.count("<article>") == 5
    assert demo_page.count('<div class="ranking">') == 10
    for words in ("One note.", "Another.", "query in Chinese", "no picture", "Training", "picture file missing"):
        assert words in demo_page
    assert "A &lt;shop&gt;" in demo_page
    positive = sum(bool(label.max() > 0) for label in labels_of(demo_data, "test"))
    skipped = len(demo_data.lists("test")) - positive
    basis = f"gain 2^grade − 1, ties worst first; {positive} queries used, {skipped} skipped"
    assert demo_page.count(basis) >= 2  # at the chart and under the table
    assert len(demo_page) < 2_000_000


def test_shop_texts_are_escaped(tiny_data, tmp_path):
    page = report(tiny_data, tmp_path).read_text("utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;mug" in page
    assert "&lt;b&gt;green" in page
    assert Page(page).open == []


def test_a_section_for_the_ablation(tiny_data, tmp_path):
    labels = labels_of(tiny_data, "test")
    table = compare(tiny_data, "test", {"model": labels, "masked <b>": labels}, resamples=10)
    ablation = AblationTable(table, {"masked": ["masked <b>"]}, {"without <b>": "it is the only one"})
    page = report(tiny_data, tmp_path, ablation=ablation).read_text("utf-8")
    assert Page(page).open == []
    assert "What each part brings" in page
    assert "hidden while scoring, nothing trained anew</th>" in page
    assert '<th scope="row">masked &lt;b&gt;</th>' in page
    assert "without &lt;b&gt;: left out, because it is the only one." in page


def test_without_catalogue_history_and_query_text(letor_data, tmp_path):
    page = report(letor_data, tmp_path / "deep" / "er", history=None).read_text("utf-8")
    assert "Training" not in page
    assert "What each part brings" not in page
    assert "no picture" not in page
    assert "item 1 of the list" in page
    assert "Nothing was left out" in page


def test_written_aside(demo_data, tiny_data, tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("old")
    (tmp_path / "other.txt").write_text("kept")

    def fail(*_, **__):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("tfmmrank.evaluation.report.render", fail)
        with pytest.raises(RuntimeError):
            report(tiny_data, tmp_path)
    assert (tmp_path / "index.html").read_text() == "old"
    report(tiny_data, tmp_path)
    assert "<h1>" in (tmp_path / "index.html").read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "other.txt"]


def test_the_same_input_gives_the_same_page(tiny_data, tmp_path):
    assert report(tiny_data, tmp_path / "a").read_bytes() == report(tiny_data, tmp_path / "b").read_bytes()


def test_bad_arguments(tiny_data, tmp_path):
    labels = labels_of(tiny_data, "test")
    table = compare(tiny_data, "test", {"model": labels}, resamples=10)
    common = {"title": "x", "table": table, "history": {}, "data": tiny_data, "after": ("model", labels)}
    with pytest.raises(ValueError, match='table is of split "test" and the report of "train"'):
        write_report(tmp_path, split="train", before=("model", labels), **common)
    with pytest.raises(ValueError, match='the table has no system "bm25"; systems: model'):
        write_report(tmp_path, split="test", before=("bm25", labels), **common)
    with pytest.raises(ValueError, match="2 arrays of scores for 3 lists"):
        write_report(tmp_path, split="test", before=("model", labels[:2]), **common)


def test_queries_are_chosen_at_equal_steps():
    change = np.linspace(-0.5, 0.5, 11)
    change[0] = np.nan
    before, after = PerQuery(np.zeros(11), "ndcg@10"), PerQuery(change, "ndcg@10")
    assert choose_queries(before, after, ["a"] * 11, 4) == [
        10,
        7,
        4,
        1,
    ]  # greatest gain first, the skipped one left out
    assert choose_queries(before, after, ["a"] * 11, 50) == list(range(10, 0, -1))
    assert choose_queries(before, after, ["a"] * 11, 0) == []
    mixed = choose_queries(before, after, ["a"] * 10 + ["红"], 4)
    assert len(mixed) == 4
    assert 10 in mixed  # the one Chinese query gets its place
    assert choose_queries(PerQuery(np.full(2, np.nan), ""), PerQuery(np.ones(2), ""), ["a", "b"], 3) == []


def test_a_broken_picture_is_no_picture(picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200_000)  # Pillow refuses twice as many
    whole = picture(size=(300, 300), form="JPEG")
    bomb = picture(size=(2000, 1000))
    for encoded in (b"", b"not a picture", whole[: len(whole) // 2], picture()[:30], bomb):
        assert thumbnail(encoded) is None


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA", "1"])
def test_thumbnails_of_every_mode(picture, mode):
    found = thumbnail(picture(size=(600, 300), mode=mode))
    assert base64.b64decode(found.partition(",")[2])[:2] == b"\xff\xd8"


def test_charts_are_reproducible_svg(tiny_data):
    table = compare(tiny_data, "test", {"模型": labels_of(tiny_data, "test")}, resamples=50)
    for chart in (history_chart(HISTORY), systems_chart(table, "模型"), history_chart({"loss": [1.0]})):
        assert re.match(r"^data:image/svg\+xml;base64,", chart)
        assert b"</svg>" in base64.b64decode(chart.partition(",")[2])
    assert history_chart(HISTORY) == history_chart(HISTORY)
    text = base64.b64decode(systems_chart(table, "模型").partition(",")[2]).decode()
    assert "模型" in text
    assert "best epoch (2)" in base64.b64decode(history_chart(HISTORY).partition(",")[2]).decode()


def test_words_facts_and_no_folders(demo_page, demo_data, tmp_path):
    assert "What the words mean" in demo_page
    assert "difference to" in demo_page
    assert "− random" not in demo_page
    assert str(demo_data.path.parent) not in demo_page
    assert "items.parquet: row " in demo_page
    page = report(demo_data, tmp_path, facts={"fusion": "mean"}).read_text("utf-8")
    assert "fusion <b>mean</b>" in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('/a b/c/items.csv: row 3: column "image": /a b/c/1.jpg', 'items.csv: row 3: column "image": 1.jpg'),
        ('"red / blue / green"', '"red / blue / green"'),
        ('"and/or/else"', '"and/or/else"'),
    ],
)
def test_folders_are_cut_off(text, shown):
    assert _FOLDERS.sub("", text) == shown


def verdict_of(places_by_system):
    """Of queries with one relevant item among ten, placed by each system where ``places_by_system`` says."""
    labels = np.zeros(10, np.float32)
    labels[0] = 1
    rows = {}
    for name, places in places_by_system.items():
        scores = [np.where(np.arange(10) == 0, -place + 0.5, -np.arange(10.0)) for place in places]
        rows[name] = metrics.ndcg([labels] * len(places), scores)
    table = SimpleNamespace(
        rows={name: SimpleNamespace(difference=None) for name in rows}, main="ndcg@10", reference="nothing", level=0.95,
        resamples=1000, seed=0, mean=lambda name: float(np.nanmean(rows[name].values)), per_query=rows.__getitem__,
    )  # fmt: skip
    return judge(table, "model")


def test_the_verdict_is_the_truth_whichever_way():
    low, high = [6, 5, 6, 7, 5, 6, 8, 6, 5, 7, 6, 5], [1] * 12
    won = verdict_of({"model": high, "bm25": low, "random": low, "oracle": high})
    assert won.sentence.startswith("model ranks better than every other system here: NDCG@10 1.000 against 0.")
    assert won.winner == "model"
    assert won.sentence.endswith(", p Holm <0.003.")  # three others, none of 1,000 resamples as far
    lost = verdict_of({"model": low, "bm25": high, "random": low})
    assert lost.sentence.startswith("bm25 ranks better than model: NDCG@10 1.000 against 0.")
    assert lost.winner == "bm25"
    even = verdict_of({"model": low, "bm25": low[::-1]})
    assert even.sentence.startswith("No significant difference between model and bm25: NDCG@10 0.")
    assert even.winner == ""
    assert even.sentence.endswith(", p 1.0000.")  # one comparison needs no correction
    assert verdict_of({"model": high, "oracle": high}).sentence == "model was measured alone: NDCG@10 1.000."
