"""The serving benchmark's own arithmetic: what is compared with what, what is refused as a figure, how it is shown."""

import contextlib
import itertools
import sys
import threading
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import pages, quality
from benchmarks.interleaved import in_turn
from benchmarks.serving import asked, conformance, figures, fuzz, models, running, swaps, weights
from tfmmrank.evaluation.bootstrap import Difference
from tfmmrank.serving import ServingError


def test_each_takes_its_turn_to_and_fro():
    turns = []
    found = in_turn({name: lambda name=name: turns.append(name) or len(turns) for name in "ab"}, 3)
    assert "".join(turns) == "abbaab"
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_spread_is_of_the_rounds():
    assert figures.spread([3.0, 1.0, 2.0, 10.0, 2.5]) == [2.5, 1.0, 10.0]
    assert figures.times([2.0, 9.0, 10.0], [1.0, 3.0, 4.0]) == [2.5, 2.0, 3.0]


def test_rows_of_the_same_figures_are_one_table():
    found = {
        "figures": {
            "1 at once": {"p50 ms": [12.34, 9.996, 0.57], "failed": 0},
            "4 at once": {"p50 ms": None, "failed": 1234},
            "after it": {"scores as before": True, "p": "<0.0002"},
            "answers": {"OK": 12345},
        },
        "machine": "2 CPU cores", "date": "2026-11-22", "minutes": 3.2,
    }  # fmt: skip
    assert pages.serving_table(found) == (
        "| | p50 ms | failed |\n"
        "| --- | ---: | ---: |\n"
        "| 1 at once | 12.3 [10.00, 0.570] | 0 |\n"
        "| 4 at once |  | 1,234 |\n"
        "\n"
        "| what | figure | value |\n"
        "| --- | --- | ---: |\n"
        "| after it | scores as before | yes |\n"
        "|  | p | <0.0002 |\n"
        "| answers | OK | 12,345 |\n"
        "\n"
        "Medians of several rounds [least, greatest], unless a figure's name says otherwise. "
        "2 CPU cores, 2026-11-22, 3 minutes.\n"
    )


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Replaces the Python that servers are started with by one that runs the given text."""

    def replace(text):
        script = tmp_path / "python"
        script.write_text(f"#!{sys.executable} -I\n{text}", "utf-8")
        script.chmod(0o755)
        monkeypatch.setattr(running.sys, "executable", str(script))

    return replace


def test_a_server_is_set_by_its_options_alone(tmp_path, python, monkeypatch):
    monkeypatch.setenv("TFMMRANK_RESULT_CACHE", "memory")
    monkeypatch.setenv("OTHERS", "stay")
    python(
        "import json, os\n"
        'names = [name for name in os.environ if name.startswith(("TFMMRANK", "OTHERS"))]\n'
        'print(json.dumps({"address": "a:1", "model": "shop", "rest_address": names}))'
    )
    process = running.Process(tmp_path)
    process._process.wait(60)
    assert (process.address, process.rest_address) == ("a:1", ["OTHERS"])


def test_a_server_that_ends_at_once_is_told(tmp_path, python):
    python("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="ended with 3 before it served"):
        running.Process(tmp_path)


class _Client:
    """A client that is answered at once."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def rank(self, *_):
        pass


def _model(folder):
    return models.Model(folder, type("Data", (), {"catalogue": type("Catalogue", (), {"ids": np.array(["i"])})}))


def test_a_restart_that_fails_ends_the_crash_test(tmp_path, monkeypatch):
    class Process:
        address, model, seconds, killed = "h:1", "shop", 0.5, threading.Event()

        def __init__(self, *_, port=0):
            if port:
                raise RuntimeError("the port is taken")

        def kill(self):
            self.killed.set()

        def stop(self):
            assert self.killed.is_set()

    for name, value in {"Process": Process, "Client": _Client, "shop_model": _model, "_BETWEEN": 0.0}.items():
        monkeypatch.setattr(swaps, name, value)
    raised = []

    def run():
        with pytest.raises(RuntimeError, match="the port is taken"):
            swaps.crash(tmp_path)
        raised.append(True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert raised


def test_what_becomes_of_requests_is_counted_over_all_kills(tmp_path, monkeypatch):
    made, lost = [], threading.Event()

    class Process:
        address, model = "h:1", "shop"

        def __init__(self, *_, port=0):
            made.append(port)
            self.seconds = float(len(made))

        def kill(self):
            if len(made) == 2:
                lost.wait(60)

        def stop(self):
            pass

    class Client(_Client):
        def rank(self, *_):
            if len(made) == 2 and not lost.is_set():
                lost.set()
                raise ServingError("UNAVAILABLE", "gone")

    for name, value in {"Process": Process, "Client": Client, "shop_model": _model, "_BETWEEN": 0.0}.items():
        monkeypatch.setattr(swaps, name, value)
    (found,) = swaps.crash(tmp_path).values()
    assert made == [0, 1, 1, 1]
    assert 1 <= found["lost"] <= swaps._WORKERS
    assert found["restart, s"] == [3.0, 2.0, 4.0]


class _Served(_Client):
    """A model's folder as a server sees it, which loads what is written until it has loaded three."""

    folder, stop, seen = None, None, None

    def status(self):
        version = max(int(each.name) for each in self.folder.iterdir() if each.name.isdigit())
        self.seen.append((version, (self.folder / str(version) / "saved_model.pb").read_bytes()))
        if version == 4:
            self.stop.set()
        return {version: "AVAILABLE" if version <= 4 else "LOADING"}


@pytest.fixture
def served(tmp_path, monkeypatch):
    folder = tmp_path / "shop"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "saved_model.pb").write_bytes(b"graph")
    for name, value in {"folder": folder, "stop": threading.Event(), "seen": []}.items():
        monkeypatch.setattr(_Served, name, value)
    monkeypatch.setattr(swaps, "Client", _Served)
    monkeypatch.setattr(swaps, "_EVERY", 0.01)
    return folder


def test_every_version_is_written_whole_and_waited_for(served):
    loads = swaps._write_versions(served, _process(), _Served.stop)
    assert _Served.seen == [(2, b"graph"), (3, b"graph"), (4, b"graph")]
    assert len(loads) == 2  # the third came when the requests had ended
    assert sorted(each.name for each in served.iterdir()) == ["3", "4"]


def test_a_version_that_does_not_come_is_told(served, monkeypatch):
    monkeypatch.setattr(_Served, "status", lambda self: {2: "LOADING"})
    monkeypatch.setattr(swaps, "_DEADLINE", 0.0)
    with pytest.raises(RuntimeError, match="version 2 was not AVAILABLE"):
        swaps._write_versions(served, _process(), _Served.stop)


def _process():
    return type("Process", (), {"address": "h:1", "model": "shop"})


def test_memory_is_the_median_of_five_readings(tmp_path, monkeypatch):
    readings = itertools.chain([100, 101, 900, 99, 100], [500] * 6, [120, 119, 800, 120, 121])

    class Process:
        running = True
        memory = property(lambda self: float(next(readings)))

    class Fuzzer:
        wrong, hung, statuses, sent = ["_flipped: UNKNOWN"], 0, {"gRPC OK": 3}, []

        def __init__(self, *_):
            pass

        def run(self, count):
            self.sent.append(count)

        def answers_as_before(self):
            return True

    fakes = {
        "shop_model": _model, "serving": lambda *_: contextlib.nullcontext(Process()), "_Fuzzer": Fuzzer,
        "_by_schema": lambda process: True,
    }  # fmt: skip
    for name, value in fakes.items():
        monkeypatch.setattr(fuzz, name, value)
    found = fuzz.fuzz(tmp_path)["20,000 malformed requests"]
    assert Fuzzer.sent == [4_000] + [1_000] * 16
    assert found["memory at the end, times that"] == 1.2
    assert found["greatest memory, MB"] == 900
    assert found["answered with a wrong status"] == 1


def test_what_parses_is_the_servers_to_say():
    """The client declares fewer fields, and so does not see that one of them is no UTF-8."""
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest()
    request.inputs["x"].resource_handle_val.add(name="abc")
    content = request.SerializeToString()
    assert fuzz._parses(content)
    assert not fuzz._parses(content.replace(b"abc", b"\xff\xfe\xfd"))


def test_tables_are_written_anew_and_models_made_once_a_run(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(models, "_model", lambda content, folder, out, name: made.append(name))
    folder = tmp_path / "table-50-tables"
    folder.mkdir()
    (folder / "judgements.csv").write_text("of older code", "utf-8")
    models.table_model(tmp_path, 50)
    models.table_model(tmp_path, 50)
    assert made == ["table50"]
    assert (folder / "judgements.csv").read_text("utf-8").startswith("query_id,item_id,grade\n")


def test_a_training_by_another_library_is_another_training(monkeypatch):
    before = quality._code(["recipe"], ["training"])
    assert quality._code(["recipe"], ["training"]) == before
    monkeypatch.setattr(quality, "version", lambda name: "0")
    assert quality._code(["recipe"], ["training"]) != before


def test_a_change_of_ndcg_has_its_interval_and_p():
    assert weights._change(None) == {"change, 95% interval": None, "p": None}
    change = weights._change(Difference(-0.01, -0.02, 0.005, p_value=0.0312, p_floor=0.0001))
    assert change == {"change, 95% interval": [-0.01, -0.02, 0.005], "p": "0.0312"}


def test_tests_are_counted_by_what_they_asked():
    def case(*names, skipped=""):
        properties = "".join(f'<property name="asked" value="{name}"/>' for name in names)
        return f"<testcase>{skipped}<properties>{properties}</properties></testcase>"

    cases = case("Predict", "REST API") + case("Predict") + case() + case(skipped="<skipped/>")
    found = conformance.count(ElementTree.fromstring(f"<suite>{cases}</suite>"))
    assert list(found) == ["Predict", "REST API", "any of these", "all of tests/serving"]
    assert found == {
        "Predict": {"tests passed": 2, "skipped": 0},
        "REST API": {"tests passed": 1, "skipped": 0},
        "any of these": {"tests passed": 2, "skipped": 0},
        "all of tests/serving": {"tests passed": 3, "skipped": 1},
    }


def test_a_failing_test_is_no_figure(tmp_path, python):
    python('print("1 failed")\nraise SystemExit(1)')
    with pytest.raises(RuntimeError, match=r"ended with 1:\n1 failed"):
        conformance.conformance(tmp_path)


def test_what_is_asked_is_remembered(monkeypatch):
    class Core:
        def predict(self, request):
            return 2 * request

        def status(self, request):
            raise KeyError(request)

    monkeypatch.setattr(asked, "_asked", set())
    asked.record(Core, {"predict": "Predict", "status": "GetModelStatus"})
    assert Core().predict(3) == 6
    assert asked._asked == {"Predict"}
    with pytest.raises(KeyError):
        Core().status(3)
    assert asked._asked == {"Predict", "GetModelStatus"}
