"""A smaller query encoder: made of the teacher's weights, taught by its tokens and scores, used as any ranker."""

import numpy as np
import pytest

from tests.conftest import uncompiled
from tests.evaluation.pair_shops import NO_TITLE, WORDS, make_shop
from tfmmrank.encoders.bert import BertEncoder
from tfmmrank.evaluation import scores_of
from tfmmrank.matching import CosineMatch
from tfmmrank.ranker import Ranker
from tfmmrank.towers import BehaviourTower, TextTower
from tfmmrank.towers.pretrained_text import PretrainedTextTower
from tfmmrank.training import distill, seed_everything
from tfmmrank.training.student import make_student

LAYERS = 3


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("shop"))


def make_teacher(shop, owner="query"):
    """Query and title of one encoder, whichever owns it; a second item tower of the same encoder."""
    seed_everything(1)
    encoder = BertEncoder(WORDS, 16, layers=LAYERS, heads=2, intermediate=32, max_tokens=8)
    options = {"dim": 8, "output": "both", "max_tokens": 8}
    if owner == "query":
        query = PretrainedTextTower(["query"], "query", encoder=encoder, name="query", **options)
        title = PretrainedTextTower(["title"], share=query, name="title", **options)
        again = PretrainedTextTower(["title"], share=query, name="again", **options)
    else:
        title = PretrainedTextTower(["title"], encoder=encoder, name="title", **options)
        query = PretrainedTextTower(["query"], "query", share=title, name="query", **options)
        again = PretrainedTextTower(["title"], share=title, name="again", **options)
    past = BehaviourTower(["past_clicks"], "slot", 8, name="past")
    towers = [query, title, again, past]
    teacher = Ranker(towers, cross_layers=0, deep=[8], match=[CosineMatch("query", "title", name="alike")])
    teacher.adapt(shop, progress=False).build_from_columns()
    rng = np.random.default_rng(0)
    teacher.set_weights([value + rng.normal(0, 0.05, value.shape) for value in teacher.get_weights()])
    return teacher


@pytest.fixture(scope="module")
def teacher(shop):
    return make_teacher(shop)


@pytest.mark.parametrize("owner", ["query", "title"])
def test_items_keep_the_teacher_s_encoder_and_the_query_gets_evenly_spread_blocks(shop, owner):
    teacher = make_teacher(shop, owner)
    student = make_student(teacher, 2)
    old, new = ({tower.name: tower for tower in ranker.towers} for ranker in (teacher, student))
    assert (new["query"].encoder.layers, new["title"].encoder.layers) == (2, LAYERS)
    assert new["again"].encoder is new["title"].encoder
    assert new["query"].encoder is not new["title"].encoder
    for place, block in enumerate((0, 2)):
        wanted, given = old["query"].encoder.blocks[block], new["query"].encoder.blocks[place]
        for one, other in zip(wanted.get_weights(), given.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    raw = shop.catalogue.rows(np.arange(NO_TITLE + 1), ["title"])
    items = [ranker.encode_items(ranker.preprocess_items(raw)) for ranker in (teacher, student)]
    for name, tokens in items[0].items():
        np.testing.assert_array_equal(tokens.values, items[1][name].values)


def test_with_as_many_blocks_as_the_teacher_s_the_scores_are_the_teacher_s(shop, teacher, uncompiled):
    from tfmmrank.training import student as made

    config = made._student_config(teacher.get_config(), {"query"}, LAYERS)
    student = Ranker.from_config(config)
    student.build_from_columns()
    made._copy_weights(teacher, student, {"query"})
    # The frozen encoder's tokens are kept in half precision, the student's are not.
    for one, other in zip(scores_of(teacher, shop, "test"), scores_of(student, shop, "test"), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3)


def test_teaching_brings_the_student_to_the_teacher(shop, teacher, tmp_path):
    untaught, before = make_student(teacher, 1), teacher.get_weights()
    student, history = distill(
        teacher, shop, blocks=1, epochs=12, learning_rate=3e-3, texts=["red shoe", "blue hat model"], progress=False
    )
    assert {len(values) for values in history.values()} == {12}
    assert min(history["tokens"]) < 0.5 * history["tokens"][0]
    assert min(history["scores"]) >= -1e-6  # a cross-entropy is not below the entropy

    def distance(ranker):
        wanted, given = scores_of(teacher, shop, "test"), scores_of(ranker, shop, "test")
        return np.mean([np.abs((a - a.mean()) - (b - b.mean())).mean() for a, b in zip(wanted, given, strict=True)])

    with uncompiled():
        assert distance(student) < 0.5 * distance(untaught)
    for one, other in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for part in ("cross", "matching"):  # nothing is taught but the query's encoder and its projection
        for one, other in zip(getattr(teacher, part).get_weights(), getattr(student, part).get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    student.save_ranker(tmp_path / "student")
    again = Ranker.load_ranker(tmp_path / "student")
    with uncompiled():
        for one, other in zip(scores_of(student, shop, "test"), scores_of(again, shop, "test"), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_distance_of_scores_is_the_lists_mean(teacher, tmp_path, uncompiled):
    """Of eleven lists, the second batch of eight is filled up with five that have no items."""
    shop = make_shop(tmp_path, lists=11)
    student, history = distill(teacher, shop, blocks=1, epochs=1, progress=False)
    distances = []
    for old, new in zip(*(scores_of(ranker, shop, "valid") for ranker in (teacher, student)), strict=True):
        log_wanted, log_given = (scores - np.logaddexp.reduce(scores) for scores in (old, new))
        distances.append((np.exp(log_wanted) * (log_wanted - log_given)).sum())
    assert history["val_scores"] == [pytest.approx(np.mean(distances), abs=1e-5)]  # float32 sums of size 1


def test_what_cannot_be_taught_is_told(shop, teacher):
    with pytest.raises(ValueError, match='blocks is 3; expected 1 to 2: "query" has 3'):
        make_student(teacher, LAYERS)
    words = Ranker([TextTower(["query"], side="query", name="query"), TextTower(["title"], name="title")])
    words.adapt(shop, progress=False).build_from_columns()
    with pytest.raises(ValueError, match="no query tower has a BERT encoder to make smaller; query towers: query"):
        make_student(words, 1)
