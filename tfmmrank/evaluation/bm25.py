"""BM25 over the catalogue's texts, for English and Chinese."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.evaluation.scoring import split_lists
from tfmmrank.registry import nearest

# Han, kana and the ideographic iteration mark are written without spaces; Hangul is written with them.
_UNSPACED = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUNS = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
CHINESE = re.compile(rf"[{_UNSPACED}]")


def tokenize(text: str) -> list[str]:
    """Words of spaced scripts with English plurals folded, and characters and pairs of them of Chinese and Japanese.

    Text is NFKC-normalised and case-folded. Single characters and overlapping pairs together are the usual stand-in for
    word segmentation in Chinese retrieval (Nie et al., 2000).

    Example:
        >>> tokenize("Running Shoes 红色鞋")
        ['running', 'shoe', '红', '色', '鞋', '红色', '色鞋']
    """
    tokens: list[str] = []
    for run in _RUNS.findall(unicodedata.normalize("NFKC", text).casefold()):
        if CHINESE.match(run):
            tokens += run
            tokens += [run[i : i + 2] for i in range(len(run) - 1)]
        else:
            tokens.append(_singular(run))
    return tokens


def _singular(word: str) -> str:
    """The S-stemmer (Harman, 1991): English plurals, and nothing else."""
    if len(word) <= 3 or not word.endswith("s"):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    return word[:-1] if not word.endswith(("us", "ss")) else word


class BM25:
    """BM25 (Robertson & Zaragoza, 2009; Lucene's idf) by the library bm25s.

    Document frequencies and lengths come from the whole catalogue; scores are of the list's candidates.

    Args:
        columns: text columns, joined; default: all of the catalogue's text columns.
        k1: how soon repeating a word stops counting.
        b: how much long texts are marked down, in [0, 1].
    """

    name = "bm25"

    def __init__(self, columns: Sequence[str] | None = None, k1: float = 1.2, b: float = 0.75) -> None:
        self.columns = list(columns) if columns is not None else None
        self.k1, self.b = k1, b
        self._index: Any = None
        self._vocabulary: dict[str, int] = {}
        self._items = 0

    def fit(self, data: Any, split: str = "train", progress: bool = False) -> BM25:
        """Indexes the catalogue; ``split`` is not read.

        Raises:
            ValueError: when the dataset has no texts to index, or no query text, or lacks a column.
        """
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # importing it asks for DEBUG

        texts = [name for name, kind in data.item_columns.items() if kind == "text"]
        for name in self.columns or []:
            if name not in texts:
                raise ValueError(
                    f'bm25: dataset {data.path} has no text column "{name}"{nearest(name, texts)}; '
                    f"text columns: {', '.join(texts) or 'none'}"
                )
        columns = self.columns or texts
        if not columns or not len(data.catalogue):
            raise ValueError(
                f"bm25: dataset {data.path} has no catalogue with texts; BM25 needs items.texts in the recipe"
            )
        if data.query_columns.get("query") != "text":
            raise ValueError(f"bm25: dataset {data.path} has no query text; BM25 needs queries.text in the recipe")
        self._vocabulary = {}
        documents: list[list[int]] = []
        bar = tqdm(total=len(data.catalogue), desc="BM25 index", unit=" items", disable=not progress)
        for batch in data.catalogue.batches(8192, columns=columns):
            for parts in zip(*(batch[name] for name in columns), strict=True):
                words = tokenize("\n".join(part.decode("utf-8") for part in parts))
                documents.append([self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words])
            bar.update(len(batch[columns[0]]))
        bar.close()
        self._items = len(documents)
        self._index = None
        if self._vocabulary:  # a catalogue whose every text is empty matches nothing
            self._index = bm25s.BM25(method="lucene", k1=self.k1, b=self.b)
            self._index.index((documents, self._vocabulary), create_empty_token=False, show_progress=False)
        return self

    def score_items(self, query: str) -> np.ndarray:
        """Scores of all items of the catalogue for a query: float32 ``[N]``, 0 where no word matches."""
        if not self._items:
            raise ValueError("bm25: call fit(data) before scoring")
        words = [self._vocabulary[word] for word in tokenize(query) if word in self._vocabulary]
        if not words:
            return np.zeros(self._items, np.float32)
        return self._index.get_scores_from_ids(words)

    def scores(self, data: Any, split: str) -> list[np.ndarray]:
        """Scores of each list's items."""
        lists = data.lists(split)
        queries = lists.queries["query"]
        return [
            self.score_items(query.decode("utf-8"))[rows]
            for query, rows in zip(queries, split_lists(lists, lists.item_rows), strict=True)
        ]

    def top(self, query: str, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of the best items of the catalogue, at most ``n``, best first; matching items only."""
        scores = self.score_items(query)
        rows = np.argsort(-scores, kind="stable")[:n]
        rows = rows[scores[rows] > 0]
        return rows.astype(np.int32), scores[rows]
