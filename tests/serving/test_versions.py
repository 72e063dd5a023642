"""Versions come and go while requests go on. A stand-in for a SavedModel makes a load quick, or slow, or fail."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from tests.serving.small_model import write_version
from tfmmrank.export import RequestError, versions_of
from tfmmrank.export.graph_loading import at_once
from tfmmrank.export.versions import choose_version
from tfmmrank.serving import serve
from tfmmrank.serving.server.config_poller import ConfigPoller
from tfmmrank.serving.server.core import ServerCore
from tfmmrank.serving.server.loaded_version import VersionState, load_warm
from tfmmrank.serving.server.manager import ModelManager
from tfmmrank.serving.server.model_config import ModelConfig, VersionPolicy, read_models
from tfmmrank.stack import tf

pytestmark = pytest.mark.embedded_only
ALL = VersionPolicy(latest=None)


class StandIn:
    """What a manager needs of a servable; a folder with the file ``broken`` cannot be loaded."""

    loads: list[str] = []

    def __init__(self, directory, way=at_once):
        StandIn.loads.append(directory.name)
        if (directory / "broken").exists():
            raise RequestError("INTERNAL", f"{directory}: broken")
        self.directory, self.closed = directory, False

    def close(self):
        self.closed = True


@pytest.fixture
def start():
    """Starts managers that are closed when the test ends."""
    started = []
    StandIn.loads = []

    def start(*models, load=StandIn, poll_seconds=0.02, **options):
        manager = ModelManager(load, poll_seconds, **options)
        manager.seen = []
        manager.on_change.append(lambda *change: manager.seen.append(change))
        started.append(manager)
        manager.start({model.name: model for model in models})
        return manager

    yield start
    for manager in started:
        manager.close(timeout=5)


def add(folder, *versions, broken=False):
    """Adds versions as an export does: written aside, then renamed."""
    for version in versions:
        aside = folder / ".new"
        aside.mkdir(parents=True)
        if broken:
            (aside / "broken").touch()
        aside.rename(folder / str(version))


def spec(model="m", **choice):
    found = ModelSpec(name=model)
    if "version" in choice:
        found.version.value = choice["version"]
    if "label" in choice:
        found.version_label = choice["label"]
    return found


def serving(manager, **choice):
    with manager.acquire(spec(**choice)) as version:
        return version.version


def states(manager, model="m"):
    return {state.version: state.state for state in manager.states(model)}


def until(condition, timeout=60):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def refusal(call, *arguments):
    with pytest.raises(RequestError) as caught:
        call(*arguments)
    return caught.value.code, str(caught.value)


def test_policies_choose_versions():
    assert VersionPolicy().choose({3, 10, 9}) == [10]
    assert VersionPolicy(latest=2).choose({3, 10, 9}) == [10, 9]
    assert ALL.choose({3, 10, 9}) == [10, 9, 3]
    assert VersionPolicy(latest=None, specific=frozenset({3, 4})).choose({3, 10, 9}) == [3]


def test_policies_are_followed(start, tmp_path):
    add(tmp_path, 1, 2, 3)
    (tmp_path / "notes").mkdir()
    for policy, expected in (
        (VersionPolicy(), {3}), (VersionPolicy(latest=2), {3, 2}), (ALL, {3, 2, 1}),
        (VersionPolicy(latest=None, specific=frozenset({1, 3})), {3, 1}),
    ):  # fmt: skip
        manager = start(ModelConfig("m", tmp_path, policy), poll_seconds=0)
        assert states(manager) == dict.fromkeys(expected, "AVAILABLE")
        assert [serving(manager, version=version) for version in expected] == list(expected)
        assert serving(manager) == 3


def test_a_new_version_is_there_before_the_old_one_goes(start, tmp_path):
    add(tmp_path, 1)
    manager = start(ModelConfig("m", tmp_path))
    assert serving(manager) == 1
    add(tmp_path, 2)
    until(lambda: states(manager) == {2: "AVAILABLE", 1: "END"})
    assert serving(manager) == 2
    assert refusal(lambda: serving(manager, version=1)) == (
        "NOT_FOUND", "Servable not found for request: Specific(m, 1)",
    )  # fmt: skip
    assert manager.seen == [
        ("m", 1, "START"), ("m", 1, "LOADING"), ("m", 1, "AVAILABLE"),
        ("m", 2, "START"), ("m", 2, "LOADING"), ("m", 2, "AVAILABLE"), ("m", 1, "UNLOADING"), ("m", 1, "END"),
    ]  # fmt: skip


def test_a_version_taken_away_falls_back_to_the_one_before(start, tmp_path):
    add(tmp_path, 1, 2)
    manager = start(ModelConfig("m", tmp_path))
    shutil.rmtree(tmp_path / "2")
    until(lambda: states(manager) == {2: "END", 1: "AVAILABLE"})
    assert serving(manager) == 1


def test_a_version_that_cannot_be_loaded_is_told_and_left_alone(start, tmp_path, caplog):
    loads = []
    add(tmp_path, 1)
    caplog.set_level("INFO", "tfmmrank.serving")
    manager = start(ModelConfig("m", tmp_path))
    manager.on_load.append(lambda folder, well: loads.append((folder.name, well)))
    add(tmp_path, 2, broken=True)
    until(lambda: states(manager).get(2) == "END")
    polls = threading.Event()
    manager.on_change.append(lambda *change: polls.set() if change == ("m", 3, "END") else None)
    add(tmp_path, 3, broken=True)  # a later poll, in which 2 would be tried again
    assert polls.wait(60)
    assert serving(manager) == 1
    assert StandIn.loads == ["1", "2", "3"]
    state = manager.states("m")[1]
    assert (state.version, state.state, state.code) == (2, "END", "INTERNAL")
    assert state.message == f"{tmp_path / '2'}: broken"
    request = GetModelStatusRequest(model_spec=spec(version=2))
    (status,) = ServerCore(manager).status(request).model_version_status
    assert (status.state, status.status.error_code, status.status.error_message) == (50, 13, state.message)
    shutil.rmtree(tmp_path / "3")
    shutil.rmtree(tmp_path / "2")
    until(lambda: ("m", 2) not in manager._failed)
    add(tmp_path, 2)  # mended
    until(lambda: states(manager)[2] == "AVAILABLE")
    assert serving(manager) == 2
    assert manager.states("m")[1].message == ""
    assert loads == [("2", False), ("3", False), ("2", True)]
    assert f"model m: version 2 cannot be loaded: {tmp_path / '2'}: broken" in caplog.messages
    assert "model m: version 2: AVAILABLE" in caplog.messages


def test_a_version_that_was_mended_in_place_is_loaded(start, tmp_path):
    add(tmp_path, 1)
    manager = start(ModelConfig("m", tmp_path))
    add(tmp_path, 2, broken=True)
    until(lambda: states(manager).get(2) == "END")
    (tmp_path / "2" / "broken").unlink()
    until(lambda: states(manager) == {2: "AVAILABLE", 1: "END"})
    assert StandIn.loads == ["1", "2", "2"]


def test_a_folder_beyond_an_int64_is_no_version(start, tmp_path):
    add(tmp_path, 1, 2**63)
    assert versions_of(tmp_path) == [1]
    manager = start(ModelConfig("m", tmp_path, ALL))
    (status,) = ServerCore(manager).status(GetModelStatusRequest(model_spec=spec())).model_version_status
    assert (status.version, serving(manager)) == (1, 1)
    add(tmp_path, 2**63 - 1)
    until(lambda: serving(manager) == 2**63 - 1)
    with pytest.raises(ValueError, match="expected a whole number from 1 to 9223372036854775807"):
        choose_version(tmp_path, 2**63)


def test_status_lists_versions_newest_first(start, tmp_path):
    add(tmp_path, 1, 10, 9)
    core = ServerCore(start(ModelConfig("m", tmp_path, ALL), poll_seconds=0))
    request = GetModelStatusRequest(model_spec=spec())
    assert [status.version for status in core.status(request).model_version_status] == [10, 9, 1]


def test_a_version_finishes_the_requests_that_hold_it(start, tmp_path):
    add(tmp_path, 1)
    manager = start(ModelConfig("m", tmp_path))
    with manager.acquire(spec()) as first, manager.acquire(spec()) as same:
        add(tmp_path, 2)
        until(lambda: states(manager) == {2: "AVAILABLE", 1: "UNLOADING"})
        assert serving(manager) == 2
        assert same is first
        servable = first.servable
        add(tmp_path, 3)  # what waits for its requests keeps nothing else from being loaded
        until(lambda: states(manager).get(3) == "AVAILABLE")
        assert states(manager)[1] == "UNLOADING"
        assert not servable.closed
    until(lambda: states(manager)[1] == "END")
    assert servable.closed


def test_requests_do_not_wait_for_a_load(start, tmp_path):
    add(tmp_path, 1)
    loading, go_on = threading.Event(), threading.Event()

    def load(directory, way):
        if directory.name == "2":
            loading.set()
            assert go_on.wait(60)
        return StandIn(directory)

    manager = start(ModelConfig("m", tmp_path), load=load)
    add(tmp_path, 2)
    assert loading.wait(60)
    assert serving(manager) == 1  # would hang here
    assert states(manager) == {2: "LOADING", 1: "AVAILABLE"}
    go_on.set()
    until(lambda: states(manager) == {2: "AVAILABLE", 1: "END"})


def test_a_load_is_given_up_when_the_server_stops(start, tmp_path):
    add(tmp_path, 1)
    stopping, calls = threading.Event(), []

    def load(directory, way):
        servable = StandIn(directory)
        for number in range(3) if directory.name == "2" else ():
            way(lambda: calls.append(number))  # noqa: B023
            if number == 1:
                stopping.set()
                until(manager._stopped.is_set)
        return servable

    manager = start(ModelConfig("m", tmp_path), load=load)
    add(tmp_path, 2)
    assert stopping.wait(60)
    manager.close()
    assert calls == [0, 1]
    assert states(manager) == {2: "END", 1: "END"}
    assert ("m", 2, "AVAILABLE") not in manager.seen


def test_a_stop_gives_up_what_the_configs_poller_loads(small_model, tmp_path):
    """The poller waits for the load that it has asked for, and the stop for the poller."""
    config, loading, calls = tmp_path / "models.config", threading.Event(), []

    def write(*names):
        entries = (
            f'config {{ name: "{name}" base_path: "{small_model}" model_platform: "tensorflow" }}' for name in names
        )
        config.write_text(f"model_config_list {{ {' '.join(entries)} }}")

    def load(directory, way):
        for number in range(1000):
            way(lambda: calls.append(number))  # noqa: B023
            loading.set()
            until(lambda: server.core.manager._stopped.is_set() or not time.sleep(0.01))
        return StandIn(directory)

    write("small")
    with serve(models=config, port=0, config_poll_seconds=0.02) as server:
        server.core.manager._load_servable = load
        write("small", "other")
        assert loading.wait(60)
    assert len(calls) < 1000
    assert server.core.manager.states("other") == [VersionState("other", 1, "END")]


def test_a_folder_that_is_away_for_a_moment_changes_nothing(start, tmp_path):
    add(tmp_path / "m", 1)
    manager = start(ModelConfig("m", tmp_path / "m"))
    (tmp_path / "m").rename(tmp_path / "away")
    until(lambda: manager._unreadable)
    assert serving(manager) == 1
    (tmp_path / "away").rename(tmp_path / "m")
    add(tmp_path / "m", 2)
    until(lambda: states(manager) == {2: "AVAILABLE", 1: "END"})


def test_memory_of_an_unloaded_version_is_given_back(start, tmp_path, small_model):
    shutil.copytree(small_model / "1", tmp_path / "m" / "1")
    manager = start(ModelConfig("m", tmp_path / "m"), load=load_warm)
    with manager.acquire(spec()) as version:
        session = weakref.ref(version.servable._session)
        graph = weakref.ref(version.servable._session.graph)
    del version
    shutil.copytree(small_model / "1", tmp_path / "m" / "copy")
    (tmp_path / "m" / "copy").rename(tmp_path / "m" / "2")
    until(lambda: states(manager) == {2: "AVAILABLE", 1: "END"})
    until(lambda: session() is None)  # at once: variables and tables are the session's
    gc.collect()
    assert graph() is None


def test_a_graph_goes_with_its_version_where_the_heap_is_frozen(start, tmp_path, small_model):
    """There Python's own collector would not come, as here; even where somebody still has the version."""
    shutil.copytree(small_model / "1", tmp_path / "m" / "1")
    gc.freeze()
    gc.disable()
    try:
        manager = start(ModelConfig("m", tmp_path / "m"), load=load_warm, poll_seconds=0)
        with manager.acquire(spec()) as version:
            graph = weakref.ref(version.servable._session.graph)
        manager.close()
        assert states(manager) == {1: "END"}
        assert graph() is None
    finally:
        gc.enable()
        gc.unfreeze()


def test_no_request_fails_while_versions_are_swapped(tmp_path):
    """Every answer is a version's own: 3 times its number."""
    folder = tmp_path / "small"
    write_version(folder / "1", scale=1.0)
    request = PredictRequest(model_spec=spec("small"))
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[3.0]]))
    answers, done = [], threading.Event()
    with serve(folder, port=0, poll_seconds=0.02) as server, grpc.insecure_channel(server.address) as channel:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict

        def ask():
            while not done.is_set():
                response = predict(request, timeout=60)
                answers.append((response.model_spec.version.value, response.outputs["y"].float_val[0]))

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            for version in (2, 3, 4):
                write_version(folder / "new", scale=float(version)).rename(folder / str(version))
                until(lambda current=version: server.version == current or any(one.done() for one in asking))
                before = len(answers)
                until(lambda seen=before: len(answers) > seen + 20 or any(one.done() for one in asking))
            done.set()
            assert [one.result() for one in asking] == [None] * 4
    assert {version for version, _ in answers} == {1, 2, 3, 4}
    assert all(value == 3.0 * version for version, value in answers)


def test_a_failed_load_keeps_no_memory(start, tmp_path):
    add(tmp_path, 1)
    manager = start(ModelConfig("m", tmp_path))
    kept = []

    def load(directory, way):
        servable = StandIn(directory)
        kept.append(weakref.ref(servable))
        raise ValueError("after the load")

    manager._load_servable = load
    add(tmp_path, 2)
    until(lambda: states(manager).get(2) == "END")
    assert kept[0]() is None
    assert manager.states("m")[0].code == "UNKNOWN"


# -- labels -----------------------------------------------------------------------------------------------------------


def labelled(folder, **labels):
    return {"m": ModelConfig("m", folder, ALL, labels)}


UNAVAILABLE = "Request to assign label to version {} of model m, which is not currently available for inference"


def test_a_label_names_a_version(start, tmp_path):
    add(tmp_path, 1, 2)
    manager = start(ModelConfig("m", tmp_path, ALL), poll_seconds=0)
    manager.reload(labelled(tmp_path, stable=1, canary=2))
    assert serving(manager, label="stable") == 1
    assert serving(manager, label="canary") == 2
    assert refusal(lambda: serving(manager, label="best")) == (
        "INVALID_ARGUMENT", "Unrecognized servable version label: best",
    )  # fmt: skip
    assert refusal(manager.reload, labelled(tmp_path, stable=3)) == ("FAILED_PRECONDITION", UNAVAILABLE.format(3))
    assert serving(manager, label="stable") == 1  # all stays as it was
    manager.reload(labelled(tmp_path, stable=2))
    assert serving(manager, label="stable") == 2
    assert refusal(lambda: serving(manager, label="canary"))[0] == "INVALID_ARGUMENT"


def test_a_label_at_the_start_needs_leave(start, tmp_path):
    add(tmp_path, 1)
    model = labelled(tmp_path, stable=1)["m"]
    with pytest.raises(RequestError, match="Request to assign label to version 1 of model m"):
        start(model)
    manager = start(model, poll_seconds=0, allow_labels_for_unavailable=True)
    assert serving(manager, label="stable") == 1
    # As in TensorFlow Serving, one that is in use moves to an AVAILABLE version only.
    assert refusal(manager.reload, labelled(tmp_path, stable=2)) == ("FAILED_PRECONDITION", UNAVAILABLE.format(2))
    manager.reload(labelled(tmp_path, stable=1, canary=2))
    assert refusal(lambda: serving(manager, label="canary")) == (
        "NOT_FOUND", "Servable not found for request: Specific(m, 2)",
    )  # fmt: skip


# -- configs ----------------------------------------------------------------------------------------------------------


def reload_request(**folders):
    request = ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    for name, folder in folders.items():
        request.config.model_config_list.config.add(name=name, base_path=str(folder), model_platform="tensorflow")
    return request


def test_a_reload_replaces_the_list_of_models(start, tmp_path):
    add(tmp_path / "a", 1)
    add(tmp_path / "b", 5)
    manager = start(ModelConfig("a", tmp_path / "a"), poll_seconds=0)
    core = ServerCore(manager, reload_roots=[tmp_path])
    assert core.reload(reload_request(a=tmp_path / "a", b=tmp_path / "b")).status.error_code == 0
    assert (serving(manager, model="a"), serving(manager, model="b")) == (1, 5)
    core.reload(reload_request(b=tmp_path / "b"))
    until(lambda: states(manager, "a") == {1: "END"})
    assert refusal(lambda: serving(manager, model="a")) == ("NOT_FOUND", "Servable not found for request: Latest(a)")
    assert StandIn.loads == ["1", "5"]  # what stays is not loaded again


def test_a_bad_reload_leaves_the_old_models_in_place(start, tmp_path):
    add(tmp_path / "a", 1)
    add(tmp_path / "broken", 1, broken=True)
    (tmp_path / "empty").mkdir()
    manager = start(ModelConfig("a", tmp_path / "a"), poll_seconds=0)
    core = ServerCore(manager, reload_roots=[tmp_path])
    twice = reload_request(a=tmp_path / "a")
    twice.config.model_config_list.config.add().CopyFrom(twice.config.model_config_list.config[0])
    assert refusal(core.reload, twice) == ("INVALID_ARGUMENT", "Illegal to list model a multiple times in config list")
    assert refusal(core.reload, reload_request(a="a")) == (
        "INVALID_ARGUMENT", "Expected model a to have an absolute path or URI; got base_path()=a",
    )  # fmt: skip
    code, message = refusal(core.reload, reload_request(a=tmp_path / "empty", b=tmp_path / "empty"))
    assert (code, "holds no version of model a" in message) == ("INVALID_ARGUMENT", True)
    other = ReloadConfigRequest()
    other.config.custom_model_config.SetInParent()
    assert refusal(core.reload, other) == (
        "INVALID_ARGUMENT",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
        "supported",
    )
    assert serving(manager, model="a") == 1
    assert list(manager.models()) == ["a"]
    code, message = refusal(core.reload, reload_request(a=tmp_path / "a", b=tmp_path / "broken"))
    assert code == "UNKNOWN"
    assert message.startswith("1 model(s) did not become available: {{b 1} due to error: ")
    assert serving(manager, model="a") == 1


def test_a_reload_that_finds_no_version_leaves_the_running_one(start, tmp_path):
    add(tmp_path / "m", 1)
    manager = start(ModelConfig("m", tmp_path / "m"), poll_seconds=0)
    file = tmp_path / "models.config"
    empty = "holds no version of model m .* that its version policy asks for"
    for folder, policy, why in (
        (tmp_path / "m", "specific { versions: 9 }", empty),
        (tmp_path / "none", "", "none: is no folder; expected the base_path of model m"),
    ):
        with pytest.raises(RequestError, match=why):
            ConfigPoller(write_config(file, folder, policy), manager, 1.0).follow()
        assert states(manager) == {1: "AVAILABLE"}
        assert manager.models() == {"m": ModelConfig("m", tmp_path / "m")}


def test_a_model_moves_to_another_folder_with_the_same_version_numbers(start, tmp_path):
    add(tmp_path / "a", 1)
    add(tmp_path / "b", 1)
    add(tmp_path / "c", 1, broken=True)
    manager = start(ModelConfig("m", tmp_path / "a"), poll_seconds=0)
    core = ServerCore(manager, reload_roots=[tmp_path])
    with manager.acquire(spec()) as first:
        core.reload(reload_request(m=tmp_path / "b"))
        with manager.acquire(spec()) as second:
            assert (first.servable.directory, second.servable.directory) == (tmp_path / "a" / "1", tmp_path / "b" / "1")
        assert not first.servable.closed
        assert states(manager) == {1: "AVAILABLE"}
    code, message = refusal(core.reload, reload_request(m=tmp_path / "c"))
    assert code == "UNKNOWN"
    assert message == f"1 model(s) did not become available: {{{{m 1}} due to error: {tmp_path / 'c' / '1'}: broken}}"
    with manager.acquire(spec()) as version:
        assert version.servable.directory == tmp_path / "b" / "1"
    manager.close()
    assert [change[2] for change in manager.seen].count("LOADING") == 1  # it was AVAILABLE all the time
    assert states(manager) == {1: "END"}


def test_a_reload_tries_again_what_could_not_be_loaded(start, tmp_path):
    add(tmp_path, 1)
    manager = start(ModelConfig("m", tmp_path), poll_seconds=0)
    broken = threading.Event()
    broken.set()

    def load(directory, way):
        if broken.is_set():
            raise OSError("the disk is away")
        return StandIn(directory)

    manager._load_servable = load
    add(tmp_path, 2)
    manager.reload(manager.models())
    assert states(manager) == {2: "END", 1: "AVAILABLE"}
    broken.clear()
    manager.reload(manager.models())
    assert states(manager)[2] == "AVAILABLE"


def test_a_reload_opens_nothing_outside_its_folders(start, tmp_path):
    add(tmp_path / "a", 1)
    add(tmp_path / "other", 1)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "other")
    core = ServerCore(start(ModelConfig("a", tmp_path / "a"), poll_seconds=0), reload_roots=[tmp_path / "a"])
    for path in (tmp_path / "other", tmp_path / "a" / ".." / "other", tmp_path / "a" / "link", "/", "/etc"):
        code, message = refusal(core.reload, reload_request(a=path))
        assert code == "PERMISSION_DENIED", path
        assert "--allow-reload-from" in message
    core.reload(reload_request(again=tmp_path / "a"))
    assert StandIn.loads == ["1", "1"]


CONFIG = """
model_config_list {{
  config {{
    name: "m" base_path: "{folder}" model_platform: "tensorflow"
    model_version_policy {{ {policy} }}
    {labels}
  }}
}}
"""


def write_config(file, folder, policy="", labels=""):
    file.write_text(CONFIG.format(folder=folder, policy=policy, labels=labels))
    return file


def test_models_config_is_read(tmp_path):
    file = tmp_path / "models.config"
    labels = 'version_labels { key: "stable" value: 3 } version_labels { key: "canary" value: 4 }'
    for policy, expected in (
        ("", VersionPolicy()), ("latest { num_versions: 2 }", VersionPolicy(latest=2)), ("all {}", ALL),
        ("latest {}", VersionPolicy()),
        ("specific { versions: 3 versions: 4 }", VersionPolicy(latest=None, specific=frozenset({3, 4}))),
    ):  # fmt: skip
        (model,) = read_models(write_config(file, tmp_path, policy, labels)).values()
        assert model == ModelConfig("m", tmp_path, expected, {"stable": 3, "canary": 4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('model_config_list { config { nam: "m" } }', 'models.config:1: .*"nam".*did you mean "name"'),
        ("custom_model_config {}", "models.config: ServerModelConfig type not supported"),
        ("", "models.config: ServerModelConfig type not supported"),
        ('model_config_list { config { base_path: "/m" } }', r"config\[0\].name is empty"),
        (
            'model_config_list { config { name: "m" base_path: "m" model_platform: "tensorflow" } }',
            r"Expected model m to have an absolute path or URI; got base_path\(\)=m",
        ),
        (
            'model_config_list { config { name: "m" base_path: "/m" model_platform: "caffe" } }',
            "Model m requests unsupported platform caffe",
        ),
        ('model_config_list { config { name: "m" base_path: "/m" } }', "Illegal setting neither ModelServerConfig"),
        (
            'model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow" '
            "model_version_policy { specific {} } } }",
            "Model m: model_version_policy.specific lists no versions",
        ),
    ],
)
def test_faults_of_a_models_config_are_told(tmp_path, text, message):
    file = tmp_path / "models.config"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_models(file)


def test_a_changed_models_config_is_followed(start, tmp_path, caplog):
    add(tmp_path / "m", 1, 2)
    file = write_config(tmp_path / "models.config", tmp_path / "m")
    manager = start(*read_models(file).values())
    poller = ConfigPoller(file, manager, 0.02)
    poller.start()
    try:
        assert states(manager) == {2: "AVAILABLE"}
        write_config(file, tmp_path / "m", "all {}")
        until(lambda: states(manager) == {2: "AVAILABLE", 1: "AVAILABLE"})
        file.write_text("model_config_list { cofnig {} }")
        until(lambda: any("is not followed" in record.message for record in caplog.records))
        assert states(manager) == {2: "AVAILABLE", 1: "AVAILABLE"}
        write_config(file, tmp_path / "m", "all {}", 'version_labels { key: "stable" value: 1 }')
        until(lambda: manager.models()["m"].labels)
        assert serving(manager, label="stable") == 1
    finally:
        poller.close()
    assert len([record for record in caplog.records if "cofnig" in record.message]) == 1  # not once a poll
