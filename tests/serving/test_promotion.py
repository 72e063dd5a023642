"""Labels moved in a models.config, with and without a running server, and taken back."""

import json
import os

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tests.serving.model_server import ModelServer
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.rollout.model_service import ModelService, ModelServiceError
from tfmmrank.serving.rollout.models_file import ModelsFile
from tfmmrank.serving.rollout.promotion import promote, rollback

HEAD = "# The shop's models.\n#  Who edits this: search team.\n\n"
CONFIG = """model_config_list {{
  config {{
    name: "shop"
    base_path: "{folder}"
    model_platform: "tensorflow"
    {shop}
  }}
  config {{
    name: "ads" base_path: "/models/ads" model_platform: "tensorflow" version_labels {{ key: "stable" value: 9 }}
  }}
}}
"""
LABELLED = "model_version_policy { specific { versions: 1 } } version_labels { key: 'stable' value: 1 }"


@pytest.fixture
def write(tmp_path):
    """Writes a models.config with versions 1 to 3 of the shop beside it."""

    def make(shop=LABELLED, versions=(1, 2, 3), folder=None):
        for version in versions:
            (tmp_path / "shop" / str(version)).mkdir(parents=True, exist_ok=True)
        file = tmp_path / "models.config"
        file.write_text(HEAD + CONFIG.format(folder=folder or tmp_path / "shop", shop=shop), encoding="utf-8")
        return file

    return make


def parsed(file):
    return text_format.Parse(file.read_text("utf-8"), model_server_config_pb2.ModelServerConfig())


def shop(file):
    """Labels and versions of the shop in the file."""
    entry = parsed(file).model_config_list.config[0]
    return dict(entry.version_labels), list(entry.model_version_policy.specific.versions)


def connected(server):
    return ModelService(server.address, pause=0.01)


# -- the file alone ---------------------------------------------------------------------------------------------------


def test_canary_keeps_both_versions(write):
    file = write()
    before = parsed(file)
    made = promote(file, "shop", 2, "canary")
    assert shop(file) == ({"stable": 1, "canary": 2}, [1, 2])
    assert (made.version, made.previous, made.versions, made.reloaded) == (2, None, [1, 2], False)
    after = parsed(file)
    assert after.model_config_list.config[1] == before.model_config_list.config[1]
    assert after.model_config_list.config[0].base_path == before.model_config_list.config[0].base_path


def test_what_a_label_leaves_stays_loaded_for_the_way_back(write):
    file = write()
    promote(file, "shop", 2, "canary")
    assert promote(file, "shop", 2, "stable").previous == 1
    assert shop(file) == ({"stable": 2, "canary": 2}, [1, 2])
    promote(file, "shop", 3, "canary")
    assert shop(file) == ({"stable": 2, "canary": 3}, [2, 3])  # nobody needs 1 any more


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ("", [2, 3]), ("model_version_policy { latest { num_versions: 2 } }", [2, 3]),
        ("model_version_policy { all {} }", [1, 2, 3]), ("model_version_policy { specific { versions: 1 } }", [1, 2]),
    ],
)  # fmt: skip
def test_first_label_keeps_what_is_served(write, policy, kept):
    file = write(policy)
    promote(file, "shop", 2, "canary")
    assert shop(file) == ({"canary": 2}, kept)


def test_version_without_a_label_is_only_loaded(write):
    file = write()
    assert promote(file, "shop", 3).labels == {"stable": 1}
    assert shop(file) == ({"stable": 1}, [1, 3])
    promote(file, "shop", 3, "stable")
    assert shop(file) == ({"stable": 3}, [1, 3])


def test_comments_at_the_head_stay(write):
    file = write()
    assert not promote(file, "shop", 2, "canary").lost_comments
    assert file.read_text("utf-8").startswith(HEAD + "model_config_list {\n")
    file.write_text(file.read_text("utf-8").replace("config {\n", "config {  # one a model\n", 1), "utf-8")
    assert promote(file, "shop", 3, "canary").lost_comments
    assert file.read_text("utf-8").startswith(HEAD)
    assert "one a model" not in file.read_text("utf-8")


def test_a_sign_in_quotes_is_no_comment(write, tmp_path):
    file = write(shop=LABELLED, folder=tmp_path / "shop")
    text = file.read_text("utf-8").replace('"/models/ads"', "'/models/#1\\'#'")
    file.write_text(text, "utf-8")
    assert not ModelsFile(file).loses_comments


def test_a_link_is_followed(write, tmp_path):
    file = write()
    link = tmp_path / "elsewhere" / "models.config"
    link.parent.mkdir()
    link.symlink_to(file)
    promote(link, "shop", 2, "canary")
    assert link.is_symlink()
    assert shop(file)[0] == {"stable": 1, "canary": 2}


# -- taking back ------------------------------------------------------------------------------------------------------


def test_rollback_restores_labels_and_policy(write):
    file = write("model_version_policy { latest { num_versions: 2 } }")
    before = parsed(file)
    promote(file, "shop", 1, "stable")
    promote(file, "shop", 2, "canary")
    made = rollback(file, "shop")
    assert (made.label, made.version, made.previous, made.labels) == ("canary", None, 2, {"stable": 1})
    assert shop(file) == ({"stable": 1}, [1, 2, 3])
    made = rollback(file, "shop", "stable")
    assert (made.version, made.previous) == (None, 1)
    assert parsed(file) == before
    with pytest.raises(ValueError, match='knows no promotion of "shop"; there is nothing to take back'):
        rollback(file, "shop")


def test_rollback_goes_to_the_version_before(write):
    file = write()
    promote(file, "shop", 2, "stable")
    made = rollback(file, "shop", "stable")
    assert (made.version, made.previous) == (1, 2)
    assert shop(file) == ({"stable": 1}, [1])


def test_rollback_of_another_label_is_refused(write):
    file = write()
    promote(file, "shop", 2, "canary")
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r'history\.json: the latest promotion of "shop" moved "canary", not "beta"'):
        rollback(file, "shop", "beta")
    with pytest.raises(ValueError, match='knows no promotion of "ads"'):
        rollback(file, "ads")
    assert file.read_bytes() == before


def test_rollback_of_an_edited_file_is_refused(write):
    file = write()
    promote(file, "shop", 2, "canary")
    file.write_text(file.read_text("utf-8").replace("versions: 2", "versions: 3"), "utf-8")
    before = file.read_bytes()
    with pytest.raises(ValueError, match="was changed since its latest promotion"):
        rollback(file, "shop")
    assert file.read_bytes() == before


def test_promoting_what_is_promoted_is_no_second_step_back(write):
    file = write()
    promote(file, "shop", 2, "canary")
    promote(file, "shop", 2, "canary")
    assert rollback(file, "shop").labels == {"stable": 1}


def test_history_says_who_was_where(write):
    file = write()
    promote(file, "shop", 2, "canary")
    (change,) = json.loads(file.with_name("models.config.history.json").read_text("utf-8"))
    assert (change["model"], change["label"], change["version"]) == ("shop", "canary", 2)
    assert change["before"] == {"labels": {"stable": 1}, "policy": "specific { versions: 1 }"}
    file.with_name("models.config.history.json").write_text("no json")
    with pytest.raises(ValueError, match=r"history\.json: is no JSON"):
        rollback(file, "shop")


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "shp"}, 'has no model "shp"; did you mean "shop"?; models: ads, shop'),
        ({"version": 9}, "has no version 9; versions: 1, 2, 3"),
        (
            {"model": "ads"},
            r'/models/ads: the base_path of "ads" is not on this machine; say where it is \(--base-path\)',
        ),
        ({"base_path": "/nowhere"}, "/nowhere: is no folder"),
    ],
)
def test_what_is_not_there_is_told_and_nothing_changes(write, options, message):
    file = write()
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        promote(**{"config_file": file, "model": "shop", "version": 2, "label": "canary", **options})
    assert file.read_bytes() == before
    assert os.listdir(file.parent).count("models.config.history.json") == 0


def test_folder_of_this_machine_where_the_file_names_another(write, tmp_path):
    file = write(folder="/models/of/another/machine")
    promote(file, "shop", 2, "canary", base_path=tmp_path / "shop")
    assert parsed(file).model_config_list.config[0].base_path == "/models/of/another/machine"


@pytest.mark.parametrize("content", [b"model_config_list { confg {} }", b"\xff\xfe", b"model_config_list {"])
def test_a_file_of_something_else(tmp_path, content):
    file = tmp_path / "models.config"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"models\.config: is no ModelServerConfig in text form"):
        promote(file, "shop", 2, "canary")
    assert file.read_bytes() == content


def test_somebody_elses_edit_is_not_overwritten(write):
    file = ModelsFile(path := write())
    path.write_text("# theirs\n", "utf-8")
    with pytest.raises(ValueError, match="was changed by another process meanwhile"):
        file.write(file.config)
    assert path.read_text("utf-8") == "# theirs\n"


# -- with a server ----------------------------------------------------------------------------------------------------


def test_server_loads_first_and_gets_the_label_then(write):
    file = write()
    told = []
    with ModelServer(file.read_text("utf-8")) as server, connected(server) as service:
        made = promote(file, "shop", 2, "canary", service, tell=told.append)
        assert server.reloads == [({"stable": 1}, [1, 2]), ({"stable": 1, "canary": 2}, [1, 2])]
        assert server.labels == {"stable": 1, "canary": 2}
        assert server.available == {1, 2}
    assert made.reloaded
    assert shop(file) == ({"stable": 1, "canary": 2}, [1, 2])
    assert told == ['waiting for "shop": 2 (LOADING)']


def test_server_is_taken_back_without_a_gap(write):
    file = write()
    with ModelServer(file.read_text("utf-8")) as server, connected(server) as service:
        promote(file, "shop", 2, "stable", service)
        promote(file, "shop", 3, "stable", service)
        assert server.available == {2, 3}
        rollback(file, "shop", server=service)
        assert server.labels == {"stable": 2}
        rollback(file, "shop", server=service)  # 1 had been kept until now
        assert server.labels == {"stable": 1}
        assert server.available == {1}
        for labels, versions in server.reloads:
            assert set(labels.values()) <= set(versions)
    assert shop(file) == ({"stable": 1}, [1])


def test_server_of_the_latest_version_keeps_it(write):
    """What was served is asked of the server: the folder may not be on this machine."""
    file = write("", folder="/models/elsewhere")
    with ModelServer(file.read_text("utf-8"), found=(1, 2, 3, 4)) as server, connected(server) as service:
        promote(file, "shop", 2, "canary", service)
        assert server.available == {2, 4}
    assert shop(file) == ({"canary": 2}, [2, 4])


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"broken": [2]}, 'version 2 of "shop" does not load: no saved_model.pb'),
        ({"found": [1]}, 'not AVAILABLE: 2 (the server has not found it: is its folder there?)'),
    ],
)  # fmt: skip
def test_a_version_that_does_not_come_up_leaves_all_as_it_was(write, trouble, message):
    file = write()
    before = file.read_bytes()
    with ModelServer(file.read_text("utf-8"), **trouble) as server, connected(server) as service:
        with pytest.raises(ModelServiceError) as told:
            promote(file, "shop", 2, "canary", service, timeout=0.2)
        assert server.labels == {"stable": 1}
        assert server.reloads[-1] == ({"stable": 1}, [1])
        assert server.available == {1}
    assert message in str(told.value)
    assert "the file is as it was, and the server was told to go back" in str(told.value)
    assert file.read_bytes() == before
    assert os.listdir(file.parent).count("models.config.history.json") == 0


@pytest.mark.parametrize("refuse_after", [0, 1])
def test_a_server_that_refuses_leaves_the_file_as_it_was(write, refuse_after):
    file = write()
    before = file.read_bytes()
    with ModelServer(file.read_text("utf-8")) as server, connected(server) as service:
        server.refuse_after = refuse_after
        with pytest.raises(
            ModelServiceError, match="refuses the configuration: not this one; the file is as it was; the"
        ):
            promote(file, "shop", 2, "canary", service)
    assert file.read_bytes() == before


def test_a_server_that_is_not_there_leaves_the_file_as_it_was(write):
    file = write()
    before = file.read_bytes()
    with ModelServer(file.read_text("utf-8")) as server:
        pass
    with connected(server) as service, pytest.raises(ModelServiceError) as told:
        promote(file, "shop", 2, "canary", service)
    assert str(told.value).count("UNAVAILABLE") == 1
    assert str(told.value).endswith("the file is as it was; the server could not be told to go back")
    assert file.read_bytes() == before


def test_an_interrupt_leaves_all_as_it_was(write):
    file = write()
    before = file.read_bytes()

    def interrupt(_):
        assert file.read_bytes() != before  # a server that polls the file sees both versions by now
        raise KeyboardInterrupt

    with ModelServer(file.read_text("utf-8")) as server, connected(server) as service:
        with pytest.raises(KeyboardInterrupt):
            promote(file, "shop", 2, "canary", service, tell=interrupt)
        assert server.reloads[-1] == ({"stable": 1}, [1])
    assert file.read_bytes() == before


def test_a_file_that_another_process_changed_stays_and_the_server_goes_back(write):
    file = write()

    def edit(_):
        file.write_text("# theirs\n", "utf-8")

    with ModelServer(file.read_text("utf-8")) as server, connected(server) as service:
        with pytest.raises(ValueError, match="was changed by another process meanwhile"):
            promote(file, "shop", 2, "canary", service, tell=edit)
        assert server.reloads[-1] == ({"stable": 1}, [1])
    assert file.read_text("utf-8") == "# theirs\n"


def test_reload_request_is_tf_servings():
    from tensorflow_serving.apis import model_management_pb2

    config = text_format.Parse(CONFIG.format(folder="/m", shop=LABELLED), model_server_config_pb2.ModelServerConfig())
    sent = wire.ReloadConfigRequest(config=config.SerializeToString()).SerializeToString()
    assert model_management_pb2.ReloadConfigRequest.FromString(sent).config == config
    answer = model_management_pb2.ReloadConfigResponse()
    answer.status.error_code, answer.status.error_message = 9, "no"
    mine = wire.ReloadConfigResponse.FromString(answer.SerializeToString())
    assert (mine.status.error_code, mine.status.error_message) == (9, "no")
