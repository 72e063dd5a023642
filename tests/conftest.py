"""Shared fixtures: small pictures, and where the evaluation data is."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tfmmrank.stack  # noqa: F401 - selects Keras 2 before anything imports TensorFlow

# Programs of the development packages (envoy, check-jsonschema) are found in an environment that is not activated too.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def encode_picture(color=(200, 30, 30), size=(40, 30), form="PNG", mode="RGB", **options) -> bytes:
    """A plain picture as encoded bytes."""
    out = io.BytesIO()
    Image.new("RGB", size, color).convert(mode).save(out, form, **options)
    return out.getvalue()


def pytest_collection_finish():
    """What is imported stays: looking through TensorFlow's half a million objects again takes a tenth of the time."""
    gc.freeze()
    gc.set_threshold(7000, 10, 100)


@pytest.hookimpl(tryfirst=True)  # before fixtures of wider scope: two trainings compared bit for bit run alike
def pytest_runtest_setup():
    """Graphs run as they are traced: optimising each takes longer than a test runs it. What is served is optimised."""
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Training and scoring go op by op, what is served runs as it was traced: a few small batches are no slower so.

    For tests whose claim holds either way, of models whose like others trace, optimise and serve.
    """
    from tfmmrank.stack import tf

    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tf.compat.v1, "Session", functools.partial(tf.compat.v1.Session, config=config))
            yield
    finally:
        tf.config.run_functions_eagerly(before)


@pytest.fixture(name="uncompiled")
def _uncompiled():
    with uncompiled():
        yield


@pytest.fixture(scope="module")
def all_uncompiled():
    """For a module's fixtures and tests together."""
    with uncompiled():
        yield


@pytest.fixture
def picture():
    return encode_picture


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def evaluation_data() -> Path:
    """The evaluation data's folder; tests that ask for it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TFMMRANK_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"evaluation data is absent: {folder} (set TFMMRANK_DATA)")
    return folder
