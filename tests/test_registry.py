"""Names: registering, finding, suggesting."""

import pytest

from tfmmrank.registry import Registry, nearest


def test_nearest_suggests_the_closest_name_only():
    assert nearest("conact", ["concat", "sum"]) == '; did you mean "concat"?'
    assert nearest("zzz", ["concat", "sum"]) == ""


def test_register_and_find():
    parts = Registry("part")

    @parts.register("one")
    class One:
        pass

    assert parts["one"] is One
    assert parts.name_of(One) == "one"
    assert "one" in parts
    assert list(parts) == ["one"]


def test_unknown_name_names_the_nearest_and_all():
    parts = Registry("part")
    parts.register("first")(type("First", (), {}))
    parts.register("other")(type("Other", (), {}))
    with pytest.raises(ValueError, match=r'unknown part "frist"; did you mean "first"\?; known: first, other'):
        parts["frist"]


def test_a_name_is_not_taken_twice():
    parts = Registry("part")
    parts.register("one")(type("One", (), {}))
    with pytest.raises(ValueError, match='part "one" is already registered'):
        parts.register("one")(type("Another", (), {}))


def test_the_same_class_may_be_registered_again():
    # Running a notebook's cell twice makes the class anew.
    parts = Registry("part")
    first = parts.register("one")(type("One", (), {}))
    second = parts.register("one")(type("One", (), {}))
    assert first is not second
    assert parts["one"] is second


def test_an_unregistered_class_has_no_name():
    with pytest.raises(ValueError, match="not a registered part"):
        Registry("part").name_of(int)
