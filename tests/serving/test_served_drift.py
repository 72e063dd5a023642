"""What a batching server logged, beside the statistics that the export wrote into its version."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.tiny_shop import as_bytes
from tfmmrank.export import Servable
from tfmmrank.serving.monitoring.drift import compare
from tfmmrank.serving.monitoring.request_log import RequestLog
from tfmmrank.serving.protocol.tensors import write_tensor
from tfmmrank.serving.server.batch_tensors import Batching
from tfmmrank.serving.server.batcher import Batcher
from tfmmrank.serving.server.core import ServerCore
from tfmmrank.serving.server.manager import ModelManager
from tfmmrank.serving.server.model_config import ModelConfig

pytestmark = pytest.mark.embedded_only

KEY = b"a key of sixteen bytes, or more"
BATCH = 8  # of 24 training lists


@pytest.fixture(scope="module")
def manager(served):
    batcher = Batcher(Batching(BATCH, batch_timeout_micros=10**12, pad_variable_length_inputs=True))
    manager = ModelManager(lambda directory, way: batcher.wrap(Servable(directory, way)), poll_seconds=0)
    manager.start({"tiny": ModelConfig("tiny", served.model_dir)})
    yield manager
    batcher.close()
    manager.close(timeout=0.1)


@pytest.fixture
def drift(served, manager, tmp_path):
    """Asks for the training lists, some columns of them changed, and compares the log."""

    def drift_of(signature, **changes):
        with RequestLog(tmp_path, KEY, rate=1) as log, ThreadPoolExecutor(2 * BATCH) as pool:
            core = ServerCore(manager, request_log=log)
            asked = list(requests(served.prepared, signature, changes))
            answers = pool.map(lambda request: core.predict(request, 60.0), asked)
            widths = [len(answer.outputs["scores"].float_val) for answer in answers]
        sizes = [request.inputs["num_items"].int_val[0] for request in asked]
        assert sum(widths) > sum(sizes), "no list was run beside a longer one"
        return compare(tmp_path, served.model_dir / "1", key=KEY, progress=False)

    return drift_of


def requests(data, signature, changes):
    """The training lists, one a request, without padding."""
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    lists = data.lists("train")
    if signature == "rank":
        places = {"item_ids": as_bytes(data.catalogue.ids[lists.item_rows])}
    else:
        places = {**data.catalogue.rows(lists.item_rows), **lists.slots}
    for q in range(len(lists)):
        inputs = {name: values[q : q + 1] for name, values in lists.queries.items()}
        inputs |= {name: values[lists.of(q)][None] for name, values in places.items()}
        inputs |= {name: change(inputs[name]) for name, change in changes.items()}
        request = PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "tiny", signature
        write_tensor(request.inputs["num_items"], np.array([len(lists.item_rows[lists.of(q)])], np.int32))
        for name, values in inputs.items():
            write_tensor(request.inputs[name], values)
        yield request


def indices(report):
    assert (report.lists, report.damaged, report.hashed) == (24, 0, [])
    return {(finding.column, finding.what): finding.psi for finding in report.findings}


def test_the_training_lists_by_id_do_not_drift(drift):
    report = drift("rank")
    found = indices(report)
    # A score at an edge may be rounded to its other side in a batch that is padded otherwise.
    assert found.pop(("scores", "values")) < 0.01
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-9)
    assert set(found) >= {("query", "words"), ("season", "values"), ("list length", "values"), ("item ids", "unknown")}
    assert report.not_logged == ["title", "picture", "price", "Brand", "past_impressions", "past_ctr", "age_days"]


def test_the_training_lists_by_features_do_not_drift(drift):
    report = drift("rank_features")
    found = indices(report)
    del found["scores", "values"]  # those of training are by id, with the features of today
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-9)
    assert report.not_logged == []


def test_other_lists_drift_where_they_differ(drift):
    found = indices(
        drift(
            "rank_features",
            query=lambda values: as_bytes([b"a query of many more words"]),
            price=lambda values: 100 * values,
            picture=lambda values: np.full(values.shape, b"", object),
            Brand=lambda values: np.where(values == b"Acme", b"Apex", values),
        )
    )
    drifted = {name for name, psi in found.items() if psi > 0.25}
    assert drifted - {("scores", "values")} == {
        ("query", "characters"), ("query", "words"), ("query", "script"), ("price", "values"), ("picture", "missing"),
        ("Brand", "values"),
    }  # fmt: skip
