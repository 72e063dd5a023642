import pytest

from tfmmrank.data.text import script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("red shoes 12", "latin"), ("Größe élan", "latin"), ("红色衬衫", "han"), ("红色衬衫 XL", "han"),
        ("红 ab", "latin"), ("红色 ab", "latin"), ("красные туфли", "other"), ("くつ 靴", "other"), ("𠮷野", "han"),
        ("12 / 13", "other"), ("", "other"), ("ＸＬ", "latin"), ("東京 Tower", "latin"), ("× ÷ ×", "other"),
    ],
)  # fmt: skip
def test_script_of_most_letters(text, script):
    assert script_of(text) == script
