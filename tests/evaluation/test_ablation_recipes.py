"""What an ablation trains by: exactly the towers and matches that are left, and shares that still hold."""

from __future__ import annotations

import pytest

from tfmmrank.evaluation.ablation_recipes import NoVariant, other_fusions, with_fusion, without
from tfmmrank.fusion import Fusion, fusions
from tfmmrank.registry import options_of
from tfmmrank.schema import Recipe
from tfmmrank.towers import Tower, towers
from tfmmrank.training import build_ranker

DATA = {
    "items": {
        "table": "i.csv", "texts": ["title", "description"], "image": "image", "numeric": ["price", "was"],
        "categorical": ["brand", "maker"],
    },
    "queries": {"table": "q.csv", "split": "split"},
    "labels": {"kind": "judgements", "table": "j.csv"},
    "behaviour": {"logs": {"table": "l.csv"}, "features": ["past_clicks"]},
}  # fmt: skip
QUERY = {"kind": "text", "side": "query", "columns": ["query"]}
WORDS = {
    "words": {"kind": "lexical", "columns": ["title"], "k1": 0.9, "max_words": 9},
    "asked": {"kind": "lexical", "side": "query", "columns": ["query"], "share": "words"},
}
MATCH = {"words": {"kind": "lexical", "query": "asked", "item": "words"}}
TOWERS = {
    "query": QUERY,
    "title": {"kind": "text", "columns": ["title"], "share": "query"},
    "past": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]},
    **WORDS,
}


def recipe_of(towers=TOWERS, match=MATCH, **model):
    return Recipe.from_dict({"data": DATA, "model": {"dim": 16, "towers": towers, "match": match, **model}})


def left(recipe, *names):
    """Without some towers, having checked that a ranker can be made of it and its file read back."""
    found = without(recipe, *names)
    assert found.wrong_towers() == []
    assert [tower.name for tower in build_ranker(found).towers] == list(found.model.towers)
    assert found.train == recipe.train
    return found.model


def test_only_item_and_slot_towers_are_modalities():
    with pytest.raises(ValueError, match='no item or slot tower "query"; towers: title, past, words'):
        without(recipe_of(), "query")


def test_the_tower_goes_and_nothing_else():
    recipe = recipe_of(modality_dropout={"title": 0.2, "past": 0.1})
    model = left(recipe, "title")
    assert list(model.towers) == ["query", "past", "words", "asked"]
    assert list(model.match) == ["words"]
    assert model.modality_dropout == {"past": 0.1}
    assert model.towers["query"] == recipe.model.towers["query"]
    assert "title" in recipe.model.towers


def test_its_matches_go_with_it_and_the_query_tower_that_serves_none():
    model = left(recipe_of(), "words")
    assert list(model.towers) == ["query", "title", "past"]
    assert model.match == {}


def test_a_query_tower_that_another_match_needs_stays_and_the_words_have_an_heir():
    more = {"kind": "lexical", "columns": ["description"], "share": "words", "k1": 2.0}
    match = {**MATCH, "more": {"kind": "lexical", "query": "asked", "item": "more"}}
    model = left(recipe_of({**TOWERS, "more": more}, match), "words")
    assert list(model.towers) == ["query", "title", "past", "asked", "more"]
    assert list(model.match) == ["more"]
    # What is shared, k1, was the owner's; how many words it keeps is each tower's own.
    assert (model.towers["more"].share, model.towers["more"].options) == (None, {"k1": 0.9})
    assert model.towers["asked"].share == "more"


def test_weights_that_others_share_have_an_heir_of_the_same_side():
    given = {
        "title": {"kind": "text", "columns": ["title"], "layers": 0, "vocab_size": 300, "max_tokens": 7},
        "query": {**QUERY, "share": "title", "max_tokens": 5},
        "description": {
            "kind": "text",
            "columns": ["description"],
            "share": "title",
            "vocab_size": 9,
            "max_tokens": 11,
        },
    }
    model = left(recipe_of(given, {}), "title")
    assert model.towers["query"].share == "description"
    assert model.towers["query"].options == {"max_tokens": 5}
    assert model.towers["description"].share is None
    assert model.towers["description"].options == {"layers": 0, "vocab_size": 300, "max_tokens": 11}
    assert left(recipe_of(given, {}), "description").towers["query"].share == "title"


def test_columns_of_the_heir_stand_where_the_owner_s_did():
    given = {
        "facts": {"kind": "behaviour", "columns": ["price", "brand"], "categorical": ["brand"], "hidden": [8]},
        "others": {"kind": "behaviour", "columns": ["was", "maker"], "share": "facts"},
    }
    others = left(recipe_of(given, {}), "facts").towers["others"]
    assert others.options == {"categorical": ["maker"], "hidden": [8]}


def test_without_anything_fused_a_query_tower_for_the_fusion_goes_too():
    model = left(recipe_of({"query": QUERY, "title": TOWERS["title"], **WORDS}), "title")
    assert list(model.towers) == ["words", "asked"]


def test_towers_go_together():
    assert list(left(recipe_of(), "title", "words").towers) == ["query", "past"]


def test_the_only_modality_stays():
    with pytest.raises(NoVariant, match="no other item or slot tower than title$"):
        without(recipe_of({"query": QUERY, "title": TOWERS["title"]}, {}), "title")
    with pytest.raises(NoVariant, match="no other item or slot tower than title, words$"):
        without(recipe_of({"query": QUERY, "title": TOWERS["title"], **WORDS}), "words", "title")


def test_an_owner_of_a_kind_that_does_not_tell_what_is_shared_stays():
    @towers.register("secretive")
    class Secretive(Tower):
        """Shares, and does not say what."""

    given = {name: {"kind": "secretive", "columns": [name]} for name in ("title", "description")}
    given["description"]["share"] = "title"
    with pytest.raises(NoVariant, match=r'share "title", and Secretive.shared_options does not tell'):
        without(recipe_of(given, {}), "title")
    assert list(without(recipe_of(given, {}), "description").model.towers) == ["title"]


@pytest.mark.parametrize("kind", [kind for kind in towers if towers[kind].__module__.startswith("tfmmrank.")])
def test_what_towers_say_they_share_are_options_of_theirs(kind):
    assert set(towers[kind].shared_options) <= set(options_of(towers[kind]))


def test_other_fusions_are_the_package_s():
    @fusions.register("someone_else_s")
    class Other(Fusion):
        """Registered by a shop."""

    kinds = other_fusions(recipe_of(fusion="gated"))
    assert {"mean", "concat", "attention"} <= set(kinds)
    assert not {"gated", "someone_else_s"} & set(kinds)
    assert other_fusions(recipe_of(WORDS)) == []  # nothing is fused


def test_another_fusion_has_the_recipe_s_dim_and_dropout_and_its_own_defaults():
    recipe = recipe_of(fusion={"kind": "attention", "heads": 2, "dim": 24, "dropout": 0.3})
    model = with_fusion(recipe, "transformer").model
    assert (model.fusion.kind, model.fusion.options) == ("transformer", {"dim": 24, "dropout": 0.3})
    assert model.model_copy(update={"fusion": recipe.model.fusion}) == recipe.model
    with pytest.raises(NoVariant, match="dim 18 is not divisible by heads 4"):
        with_fusion(recipe_of(fusion={"kind": "mean", "dim": 18}), "attention")
