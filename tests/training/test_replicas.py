"""Two replicas, made of two logical CPUs, learn what one does."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from tests.conftest import encode_picture
from tests.tiny_shop import MemoryShop, make_recipe
from tests.training.test_fit import MODEL
from tfmmrank.stack import tf
from tfmmrank.training import build_ranker, fit

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
out = Path(sys.argv[1])
model = {**MODEL, "cross": {"layers": 1, "deep": [16]}}
model["modality_dropout"] = {}
model["match"] = {"words": {"kind": "lexical", "query": "asked", "item": "words"}}
model["towers"] = {name: {**tower, "dropout": 0.0} if "share" not in tower else tower
                   for name, tower in model["towers"].items()}
model["towers"]["words"] = {"kind": "lexical", "columns": ["title"]}
model["towers"]["asked"] = {"kind": "lexical", "side": "query", "columns": ["query"], "share": "words"}
# 24 lists are three steps of one replica with eight lists, or of two with four each; of 18 lists, one replica of the
# last step gets none.
for lists, name in ((24, "even"), (18, "odd")):
    shop = MemoryShop(out / name, encode_picture, lists=lists)
    reached = {}
    for replicas, batch_size in ((1, 8), (2, 4)):
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else tf.distribute.get_strategy()
        recipe = make_recipe(model, optimizer="sgd", learning_rate=0.01, clip_norm=None, epochs=2,
                             batch_size=batch_size, patience=0)
        with strategy.scope():
            assert tf.distribute.get_strategy().num_replicas_in_sync == replicas
            ranker = build_ranker(recipe, shop)
            history = fit(ranker, recipe.train, shop, out / name / f"run-{replicas}", progress=False)
        reached[replicas] = history, [variable.numpy() for variable in ranker.trainable_variables]
    print(name, reached[1][0], reached[2][0])
    assert len(reached[2][0]["val_ndcg@10"]) == 2
    for metric in ("loss", "ndcg@10", "val_loss", "val_ndcg@10"):
        np.testing.assert_allclose(reached[2][0][metric], reached[1][0][metric], rtol=1e-4)
    for one, two in zip(reached[1][1], reached[2][1], strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-4)
print("done")
"""


@pytest.mark.slow
def test_two_replicas_equal_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")
