"""Texts made comparable."""

from __future__ import annotations

import re
import unicodedata

_SPACE = re.compile(r"\s+")


def normalize_query(text: str) -> str:
    """NFKC, case folded, white space collapsed: what "the same query" means when splits are checked."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
