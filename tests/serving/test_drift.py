"""Logs of a made-up shop, written by the request log, compared with statistics worked out by hand."""

import json
import math

import numpy as np
import pytest

from tfmmrank.data.example_lists import write_record
from tfmmrank.export.statistics import describe
from tfmmrank.serving.monitoring.distribution_tests import psi
from tfmmrank.serving.monitoring.drift import compare
from tfmmrank.serving.monitoring.drift_counts import Finding, Thresholds
from tfmmrank.serving.monitoring.request_log import RequestLog
from tfmmrank.serving.monitoring.training_statistics import TrainingStatistics
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import write_tensor

KEY = b"a key of sixteen bytes, or more"
STATISTICS = {
    "version": 1,
    "lists": 1000,
    "columns": {
        "age": {"kind": "numeric", "edges": [20, 40], "shares": [0.25, 0.5, 0.25], "missing": 0.2},
        "season": {"kind": "categorical", "values": {"summer": 0.5, "winter": 0.3}, "other": 0.2, "missing": 0.5},
        "query": {
            "kind": "text", "characters": {"edges": [5], "shares": [0.5, 0.5]},
            "words": {"edges": [2], "shares": [0.75, 0.25]},
            "scripts": {"latin": 0.75, "han": 0.25, "other": 0.0}, "missing": 0.0,
        },
        "picture": {"kind": "picture", "missing": 0.1},
    },
    "scores": {"edges": [0.0], "shares": [0.5, 0.5]},
    "list_length": {"edges": [3.0], "shares": [0.5, 0.5]},
}  # fmt: skip


def version(folder, statistics=STATISTICS):
    path = folder / "shop" / "3"
    (path / "assets.extra").mkdir(parents=True)
    (path / "assets.extra" / "training_statistics.json").write_text(json.dumps(statistics), "utf-8")
    return path


def ranked(query, season, age, scores, known, padding=1, beyond=0):
    """One list with its answer, padded; the answer has so many places beyond those asked for."""
    request, response = wire.PredictRequest(), wire.PredictResponse()
    width = len(scores) + padding
    write_tensor(request.inputs["query"], [query])
    write_tensor(request.inputs["season"], [season])
    write_tensor(request.inputs["age"], np.array([age], np.float32))
    write_tensor(request.inputs["item_ids"], [[f"i{n}" for n in range(len(scores))] + [""] * padding])
    write_tensor(request.inputs["num_items"], np.array([len(scores)], np.int32))
    write_tensor(response.outputs["scores"], np.array([scores + [-1e9] * (padding + beyond)], np.float32))
    write_tensor(response.outputs["known"], np.array([known + [False] * (padding + beyond)]))
    assert len(known) + padding == width
    return request, response


def a_hundred_lists(**places):
    """Ten times ten lists whose shares are said beside."""
    # Short 7 of 9; latin 6 of 9; one word, as hat, 4 of 9; missing 1 of 10.
    queries = ["hat"] * 4 + ["red shoes"] * 2 + ["红色"] * 3 + [""]
    seasons = ["summer"] * 2 + ["winter"] * 2 + ["autumn"] + [""] * 5  # 0.4, 0.4, other 0.2; missing 0.5
    ages = [10] + [19] + [20] * 3 + [40] * 3 + [np.nan, np.inf]  # 0.25, 0.375, 0.375; missing 0.2
    lists = [([0.5, -0.5], [True, True]), ([1.0, -1e8, 2.0], [True, False, True])] * 5  # lengths half and half
    # scores of known items: 15 positive, 5 not; unknown 5 of 25
    for _ in range(10):
        for query, season, age, (scores, known) in zip(queries, seasons, ages, lists, strict=True):
            yield ranked(query, season, age, scores, known, **places)


def write_log(folder, messages, model="shop", number=3, signature="rank", **options):
    with RequestLog(folder, KEY, rate=1, **{"max_waiting": 10_000, **options}) as log:
        for request, response in messages:
            log.record(model, number, signature, request, response)
    assert log.counts.written == log.counts.offered


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    write_log(folder / "logs", a_hundred_lists())
    return folder / "logs", version(folder)


def findings(report):
    return {(finding.column, finding.what): finding for finding in report.findings}


def index(expected, observed):
    return psi(np.array(expected), np.array(observed))


def test_every_comparison_by_hand(shop):
    report = compare(*shop, key=KEY, progress=False)
    found = findings(report)
    assert (report.model, report.version, report.requests, report.lists) == ("shop", 3, 100, 100)
    expected = {
        ("age", "values"): (80, index([0.25, 0.5, 0.25], [0.25, 0.375, 0.375])),
        ("age", "missing"): (100, 0.0),
        ("season", "values"): (50, index([0.5, 0.3, 0.2], [0.4, 0.4, 0.2])),
        ("season", "missing"): (100, 0.0),
        ("query", "characters"): (90, index([0.5, 0.5], [7 / 9, 2 / 9])),
        ("query", "words"): (90, index([0.75, 0.25], [4 / 9, 5 / 9])),
        ("query", "script"): (90, index([0.75, 0.25], [6 / 9, 3 / 9])),
        ("query", "missing"): (100, index([0, 1], [0.1, 0.9])),
        ("scores", "values"): (200, index([0.5, 0.5], [0.25, 0.75])),
        ("list length", "values"): (100, 0.0),
        ("item ids", "unknown"): (250, index([0, 1], [0.2, 0.8])),
    }
    assert {name: finding.values for name, finding in found.items()} == {n: v for n, (v, _) in expected.items()}
    for name, (_, value) in expected.items():
        assert found[name].psi == pytest.approx(value, abs=1e-12), name
    assert found["age", "values"].ks == pytest.approx(0.125)
    assert found["item ids", "unknown"].logged == pytest.approx(0.2)
    assert found["query", "missing"].training == 0
    # Bins less one, over a hundred lists and the thousand of training.
    assert found["scores", "values"].by_chance == pytest.approx(1 / 100 + 1 / 1000)
    assert found["season", "values"].lists == 50
    assert found["season", "values"].by_chance == pytest.approx(2 * (1 / 50 + 1 / 1000))
    assert report.not_logged == ["picture"]
    assert report.hashed == []
    assert report.worst == max(value for _, value in expected.values())


def test_without_the_key_hashed_categories_are_left_out(shop):
    report = compare(*shop, progress=False)
    assert report.hashed == ["season"]
    assert ("season", "values") not in findings(report)
    assert findings(report)["season", "missing"].psi == 0
    assert "to compare it, give the key of then (--key-file): season" in report.table()


def test_another_key_is_no_drift(shop):
    report = compare(*shop, key=b"another key of 16 bytes or more", progress=False)
    assert report.hashed == ["season"]
    assert ("season", "values") not in findings(report)


def test_plain_categories_need_no_key(tmp_path):
    write_log(tmp_path / "logs", a_hundred_lists(), plain_text=["season", "query"])
    report = compare(tmp_path / "logs", version(tmp_path), progress=False)
    assert findings(report)["season", "values"].psi == pytest.approx(index([0.5, 0.3, 0.2], [0.4, 0.4, 0.2]))
    assert report.hashed == []


def test_texts_of_a_log_that_tensorflow_serving_wrote_itself(tmp_path, shop):
    (tmp_path / "logs").mkdir()
    with open(tmp_path / "logs" / "a.tfrecord", "wb") as file:
        for request, response in a_hundred_lists():
            log = wire.PredictionLog(predict_log={"request": request, "response": response})
            log.log_metadata.model_spec.name = "shop"
            log.log_metadata.model_spec.version.value = 3
            write_record(file, log.SerializeToString())
    plain, hashed = (findings(compare(logs, shop[1], key=KEY, progress=False)) for logs in (tmp_path / "logs", shop[0]))
    assert plain == hashed


def test_answers_of_a_batching_server_are_cut_to_what_was_asked(tmp_path, shop):
    """It leaves them as long as the longest list of the batch; here with and without padding of the client's own."""
    write_log(tmp_path / "logs", [*a_hundred_lists(padding=0, beyond=40), *a_hundred_lists(padding=2, beyond=1)])
    report, alone = (compare(logs, shop[1], key=KEY, progress=False) for logs in (tmp_path / "logs", shop[0]))
    assert (report.lists, report.damaged) == (200, 0)
    for name, finding in findings(report).items():
        expected = findings(alone)[name]
        assert (finding.values, finding.psi) == (2 * expected.values, expected.psi), name


@pytest.mark.parametrize("shape", [(1, 2), (2, 3), (3,), (0, 3), ()])
def test_answers_of_other_shapes_are_damaged(tmp_path, shop, shape):
    """Three places are asked for."""
    whole, damaged = (ranked("hat", "", 3, [1.0, 2.0, 3.0], [True] * 3, padding=0) for _ in range(2))
    damaged[1].outputs["known"].Clear()
    write_tensor(damaged[1].outputs["known"], np.ones(shape, bool))
    write_log(tmp_path / "logs", [whole, damaged])
    report = compare(tmp_path / "logs", shop[1], progress=False)
    assert (report.lists, report.damaged) == (1, 1)


def test_item_columns_are_counted_without_padding(tmp_path):
    def messages():
        for number in range(40):
            request, response = wire.PredictRequest(), wire.PredictResponse()
            picture = b"" if number % 4 == 0 else b"\xff\xd8\xff picture"
            write_tensor(request.inputs["picture"], np.array([[picture, b"\xff\xd8\xff", b""]], object))
            write_tensor(request.inputs["price"], np.array([[[1, 9], [np.nan, 9], [5, 5]]], np.float32))
            write_tensor(request.inputs["query"], ["hat"])
            write_tensor(request.inputs["num_items"], np.array([2], np.int32))
            write_tensor(response.outputs["scores"], np.array([[1, 2, -1e9]], np.float32))
            yield request, response

    columns = {**STATISTICS["columns"], "price": {"kind": "numeric", "edges": [5], "shares": [1, 3], "missing": 0.5}}
    write_log(tmp_path / "logs", messages(), signature="rank_features")
    found = findings(compare(tmp_path / "logs", version(tmp_path, {**STATISTICS, "columns": columns}), progress=False))
    assert found["picture", "missing"].logged == pytest.approx(10 / 80)
    assert (found["picture", "missing"].values, found["picture", "missing"].lists) == (80, 40)
    assert found["price", "values"].psi == pytest.approx(index([0.25, 0.75], [1 / 3, 2 / 3]))  # shares are brought to 1
    assert found["price", "missing"].logged == pytest.approx(0.25)
    assert found["query", "characters"].values == 40  # three places are not three numbers of statistics
    assert found["scores", "values"].values == 80
    assert ("item ids", "unknown") not in found


def test_only_this_models_rankings(tmp_path):
    lists = list(a_hundred_lists())
    write_log(tmp_path / "logs", lists[:7], model="ads")
    write_log(tmp_path / "logs", lists[:5], number=2)
    embed = wire.PredictRequest()
    write_tensor(embed.inputs["query"], ["hat"])
    write_log(tmp_path / "logs", [(embed, wire.PredictResponse())] * 2, signature="embed_query")
    folder = version(tmp_path)
    there = 'holds no list that "shop" version 3 ranked; it holds: '
    with pytest.raises(ValueError, match=there):
        compare(tmp_path / "logs", folder, progress=False)
    write_log(tmp_path / "logs", lists[:3])
    report = compare(tmp_path / "logs", folder, progress=False)
    assert report.lists == 3
    assert report.others == {
        '"ads" version 3': 7,
        '"shop" version 2': 5,
        '"shop" version 3, signature "embed_query"': 2,
    }
    assert 'left out: 7 requests of "ads" version 3' in report.table()
    assert compare(tmp_path / "logs", folder, model="ads", progress=False).lists == 7


def test_damaged_and_unfinished_files_are_counted(tmp_path):
    logs = tmp_path / "logs"
    write_log(logs, list(a_hundred_lists())[:10])
    (file,) = logs.iterdir()
    content = file.read_bytes()
    size = len(content) // 10
    (logs / "cut.tfrecord").write_bytes(content[: -size // 2])  # its last record is not whole
    (logs / "flipped.tfrecord").write_bytes(content[:40] + bytes([content[40] ^ 255]) + content[41:])
    with open(logs / "rubbish.tfrecord", "wb") as rubbish:
        write_record(rubbish, b"\xff\xff no proto")
        request, response = ranked("hat", "", 3, [1.0], [True])
        request.inputs["num_items"].int_val[0] = 50  # of two places
        log = wire.PredictionLog(predict_log={"request": request, "response": response})
        log.log_metadata.model_spec.name = "shop"
        log.log_metadata.model_spec.version.value = 3
        write_record(rubbish, log.SerializeToString())
    (logs / "now.tfrecord.partial").write_bytes(b"")
    report = compare(logs, version(tmp_path), progress=False)
    assert (report.lists, report.damaged, report.files, report.partial) == (10 + 9 + 9, 4, 4, 1)
    assert "left out: 4 damaged records" in report.table()


def test_few_lists_say_nothing(tmp_path):
    write_log(tmp_path / "logs", list(a_hundred_lists())[:10])
    report = compare(tmp_path / "logs", version(tmp_path), key=KEY, progress=False)
    assert {entry["verdict"] for entry in report.to_dict()["findings"]} == {"too few"}
    assert report.worst == 0
    assert "so many lists differ by chance alone" in report.table()
    assert "training had" not in report.table()


def test_a_training_of_few_lists_is_told_as_such(tmp_path, shop):
    """However many are logged: a bin less one over 30 lists of training is more than half of what is worth a look."""
    small = version(tmp_path, {**STATISTICS, "lists": 30})
    report = compare(shop[0], small, key=KEY, progress=False)
    assert report.thresholds.verdict(findings(report)["age", "values"]) == "too few"
    assert "training had 30 lists; where it is so, no log will tell" in report.table()


def test_verdicts():
    def verdict(index, by_chance=0.01):
        return Thresholds().verdict(Finding("c", "values", 1, 1, index, by_chance))

    assert [verdict(x) for x in (0.0, 0.099, 0.1, 0.25, 0.251)] == ["stable", "stable", "look", "look", "act"]
    assert [verdict(0.5, by_chance) for by_chance in (0.05, 0.051, math.inf)] == ["act", "too few", "too few"]
    with pytest.raises(ValueError, match="look is 0.3 and act is 0.2"):
        Thresholds(0.3, 0.2)


def test_a_column_of_another_kind(tmp_path, shop):
    columns = {"query": {"kind": "numeric", "edges": [], "shares": [1], "missing": 0}}
    with pytest.raises(ValueError, match='column "query" is numeric in training and text in the log'):
        compare(shop[0], version(tmp_path, {**STATISTICS, "columns": columns}), progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2"),
        ({"columns": None}, "NoneType"),
        (
            {"scores": {"edges": [1, 2], "shares": [0.5, 0.5]}},
            '"scores" has 2 edges and 2 shares; expected one share more',
        ),
        ({"scores": {"edges": [2, 1], "shares": [0.2, 0.3, 0.5]}}, "edges that do not ascend"),
        ({"scores": {"edges": [1], "shares": [-1, 2]}}, "shares that are no shares"),
        (
            {"columns": {"x": {"kind": "nominal"}}},
            'column "x" has kind "nominal"; expected one of numeric, categorical',
        ),
        ({"columns": {"x": {"kind": "picture"}}}, "has no key 'missing'"),
        ({"columns": {"x": {"kind": "picture", "missing": 2}}}, "has missing 2.0; expected a share"),
    ],
)
def test_statistics_that_are_none(tmp_path, change, message):
    folder = version(tmp_path, {**STATISTICS, **change})
    with pytest.raises(ValueError, match=message) as told:
        TrainingStatistics.read(folder)
    assert str(folder / "assets.extra" / "training_statistics.json") in str(told.value)


def test_what_training_never_saw_is_not_compared(tmp_path, shop):
    columns = {
        "age": describe("numeric", np.array([np.nan, np.inf], np.float32)),
        "season": {"kind": "categorical", "values": {}, "other": 0, "missing": 1.0},
        "query": describe("text", np.array([b"", b""], object)),
    }
    found = findings(compare(shop[0], version(tmp_path, {"version": 1, "columns": columns}), key=KEY, progress=False))
    assert set(found) == {("age", "missing"), ("season", "missing"), ("query", "missing"), ("item ids", "unknown")}
    assert found["age", "missing"].by_chance == pytest.approx(1 / 100)  # of training the number of lists is not known


def test_nothing_there(tmp_path, shop):
    with pytest.raises(FileNotFoundError, match="holds no complete request log"):
        compare(tmp_path, shop[1], progress=False)
    with pytest.raises(FileNotFoundError, match=r"training_statistics\.json: is not there"):
        compare(shop[0], tmp_path, progress=False)
