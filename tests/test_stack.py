"""The stack: Keras 2 everywhere, one clear error where that is too late, and nothing imported before it is needed."""

import os
import subprocess
import sys

import pytest

import tfmmrank


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return finished(started(code, **environment))


def started(code: str, **environment: str) -> subprocess.Popen:
    kept = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env={**kept, **environment}, **pipes)


def finished(process: subprocess.Popen) -> subprocess.CompletedProcess:
    try:
        printed = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, *printed)
    finally:
        process.kill()


@pytest.fixture(scope="module", autouse=True)
def loading():
    """All libraries loading in a process of their own, while the first tests run."""
    code = "import tfmmrank; from tfmmrank.stack import keras_nlp, tf; tf.config.list_physical_devices()"
    process = started(code, TF_CPP_MIN_LOG_LEVEL="3")
    yield process
    process.kill()
    process.wait()


def test_importing_the_package_does_not_import_tensorflow():
    done = python("import sys, os, tfmmrank; print('tensorflow' in sys.modules, os.environ['TF_USE_LEGACY_KERAS'])")
    assert done.stdout.split() == ["False", "1"], done.stderr


@pytest.mark.parametrize("loaded", [
    "import sys, types; keras = types.SimpleNamespace(Model=type('Model', (), {'__module__': 'keras.src.models'})); "
    "sys.modules['tensorflow'] = types.SimpleNamespace(keras=keras)",
    pytest.param("import tensorflow as tf; tf.keras.Model", marks=pytest.mark.slow),  # 12 s
], ids=["told apart by its module", "real"])  # fmt: skip
def test_keras_3_loaded_before_is_one_error_with_the_cure(loaded):
    done = python(f"{loaded}; import tfmmrank", TF_USE_LEGACY_KERAS="0")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "StackError: TensorFlow is already loaded with Keras 3" in last
    assert "TF_USE_LEGACY_KERAS=1" in last
    assert "import tfmmrank" in last


def test_all_libraries_load_and_share_keras_2():
    from tfmmrank.stack import hub, keras, keras_nlp, tf, tf_text, tfr, tfrs

    assert tf.keras.Model is keras.Model
    assert keras.Model.__module__.startswith("tf_keras")
    assert issubclass(tfrs.Model, keras.Model)
    assert issubclass(keras_nlp.layers.TransformerEncoder, keras.layers.Layer)
    assert issubclass(hub.KerasLayer, keras.layers.Layer)
    assert "softmax_loss" in tfr.keras.losses.RankingLossKey.all_keys()
    assert hasattr(tf_text, "FastBertTokenizer")


def test_tf_ranking_metric_works_on_this_stack():
    from tfmmrank.stack import tfr

    # grades 0, 1 ranked in the wrong order: DCG = 1 / log2(3), the best is 1
    value = float(tfr.keras.metrics.NDCGMetric()([[0.0, 1.0]], [[2.0, 1.0]]))
    assert value == pytest.approx(0.6309298)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        tfmmrank.stack.nothing_of_the_kind  # noqa: B018
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        tfmmrank.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("name", tfmmrank.__all__)
def test_every_public_name_resolves(name):
    assert getattr(tfmmrank, name) is not None
    assert name in dir(tfmmrank)


def test_rooms_are_reached_as_attributes():
    assert callable(tfmmrank.export.export)
    assert callable(tfmmrank.training.fit)
    assert callable(tfmmrank.fit)


def test_loading_writes_nothing_on_the_screen(loading):
    silent = finished(loading)
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")


@pytest.mark.slow
def test_tensorflow_imported_before_is_fine_with_keras_2():
    code = "import tensorflow as tf, tfmmrank; from tfmmrank.stack import keras; print(keras.Model.__module__)"
    done = python(code, TF_USE_LEGACY_KERAS="1")
    assert done.stdout.startswith("tf_keras"), done.stderr


def test_what_is_no_notice_comes_through():
    code = (
        "import os; from tfmmrank.stack import _without_notices\n"
        "with _without_notices(): os.write(2, b'I0000 00:00:1 a.cc:1] notice\\nworth reading\\n')"
    )
    assert python(code, TF_CPP_MIN_LOG_LEVEL="3").stderr == "worth reading\n"
    assert "notice" in python(code, TF_CPP_MIN_LOG_LEVEL="2").stderr
