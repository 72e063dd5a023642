"""Texts made comparable."""

from __future__ import annotations

import re
import unicodedata

SCRIPTS = ("latin", "han", "other")

_SPACE = re.compile(r"\s+")
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile(r"[A-Za-zªºÀ-ÖØ-öø-ʯḀ-ỿＡ-Ｚａ-ｚ]")
_HAN = re.compile(r"[々㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff]")
_WORD = re.compile(rf"{_HAN.pattern}|(?:(?!{_HAN.pattern})\w)+")


def normalize_query(text: str) -> str:
    """NFKC, case folded, white space collapsed: what "the same query" means when splits are checked."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def script_of(text: str) -> str:
    """The script that most of a text's letters are of, one of ``SCRIPTS``; a tie goes to the one named first.

    A text without letters is ``other``.
    """
    latin, han = len(_LATIN.findall(text)), len(_HAN.findall(text))
    counts = (latin, han, len(_LETTER.findall(text)) - latin - han)
    return SCRIPTS[counts.index(max(counts))] if any(counts) else "other"


def word_count(text: str) -> int:
    """How many words a text has: runs of letters and digits, and each Chinese character."""
    return len(_WORD.findall(text))
