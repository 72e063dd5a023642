"""What is computed once, kept, and found again."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_shop import MemoryShop
from tfmmrank.data import DataError, Prepared, feature_folders, feature_rows, feature_store, prepare
from tfmmrank.data.feature_store import item_features
from tfmmrank.stack import tf
from tfmmrank.towers import Tower

EMBEDDED: list[int] = []  # lengths of the titles given to embed, a batch's filling included
STOP = {"at": 0, "how": lambda: None}  # what to do when so many batches were embedded


def _embedded(lengths):
    if STOP["at"] and len(EMBEDDED) >= STOP["at"] * feature_store.ROWS_AT_ONCE:
        STOP["at"] = 0
        STOP["how"]()
    EMBEDDED.extend(lengths.tolist())
    return lengths


class Lengths(Tower):
    """A title's length, and its half in half precision; titles of the tests differ in length."""

    state = b""
    names = ("length", "half")

    def preprocess(self, raw):
        return {"length": tf.strings.length(raw[self.columns[0]])}

    def embed(self, features):
        length = features["length"]
        seen = tf.ensure_shape(tf.numpy_function(_embedded, [length], tf.int32), length.shape)
        return {self.names[0]: seen, self.names[1]: tf.cast(seen, tf.float16)[:, None] / 2}

    def embed_state(self):
        return self.state


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(feature_store, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(feature_store, "_COPIED", 3)
    EMBEDDED.clear()
    STOP["at"] = 0


def stop_after(batches, how) -> None:
    STOP.update(at=batches, how=how)


def fail():
    raise RuntimeError("stopped by the test")


def tower(name="title", **options) -> Lengths:
    return Lengths(["title"], name=name, **options)


def computed() -> list[int]:
    """Which lengths were computed since the last call, a batch's filling left out."""
    found = sorted(set(EMBEDDED))
    EMBEDDED.clear()
    return found


class Market:
    """A shop whose items have titles of given lengths."""

    def __init__(self, shop) -> None:
        self.shop, self.out = shop, shop.folder / "out"

    def prepare(self, lengths, grade=1):
        self.shop.items = [
            {"item_id": f"i{i}", "title": "x" * n, "image": "", "price": n, "brand": "b"} for i, n in enumerate(lengths)
        ]
        self.shop.judgements = [{"query_id": f"q{q}", "item_id": "i0", "grade": grade} for q in (1, 2, 3, 4)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="none of the .* has a picture")
            return prepare(self.shop.recipe(), self.out, progress=False)

    def folders(self, name="title") -> list[str]:
        """What stands in the tower's folders."""
        return sorted(path.name for path in (self.out / "features").glob(f"{name}-*/*"))


@pytest.fixture
def market(shop) -> Market:
    return Market(shop)


def check(features, lengths) -> None:
    assert features["length"].dtype == np.int32
    assert features["half"].dtype == np.float16
    np.testing.assert_array_equal(features["length"], lengths)
    np.testing.assert_array_equal(features["half"], np.array(lengths, np.float16)[:, None] / 2)


def features_of(data, name="title"):
    return item_features(data, tower(name), progress=False)


def test_computed_once_in_batches_of_one_shape(market):
    data = market.prepare(range(1, 11))
    features = features_of(data)
    check(features, range(1, 11))
    assert isinstance(features["half"], np.memmap)
    assert not features["half"].flags.writeable
    assert [EMBEDDED[start : start + 4] for start in (0, 4, 8)] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 9, 10]]
    assert len(EMBEDDED) == 12
    assert market.folders() == [data.build]


def test_opening_a_whole_store_reads_no_raw_values(market, monkeypatch):
    data = market.prepare([1, 2, 3])
    features_of(data)
    for name in ("batches", "rows"):
        monkeypatch.setattr(type(data.catalogue), name, lambda *_: pytest.fail("read raw values"))
    monkeypatch.setattr(feature_store, "Home", lambda *_: pytest.fail("wanted to write"))
    check(features_of(data), [1, 2, 3])


def test_prepared_again_only_new_and_changed_items_are_computed(market):
    features_of(market.prepare([5, 6, 7, 8, 9]))
    computed()
    data = market.prepare([20, 9, 7, 21, 5, 5])  # 6 and 8 go, 20 and 21 come, the rest changes places
    check(features_of(data), [20, 9, 7, 21, 5, 5])
    assert computed() == [20, 21]
    assert market.folders() == [data.build]
    (store,) = (market.out / "features").glob("title-*/*")
    assert len(np.load(store / "digests.npy")) == 6  # what was removed is not kept


def test_the_same_items_are_taken_as_they_are(market, monkeypatch):
    market.prepare([5, 6, 7])
    (file,) = [features_of(market.prepare([5, 6, 7]))["length"].filename]
    inode = os.stat(file).st_ino
    computed()
    data = market.prepare([5, 6, 7])
    monkeypatch.setattr(feature_store, "RowWriter", lambda *_: pytest.fail("wrote rows"))
    features = features_of(data)
    check(features, [5, 6, 7])
    assert os.stat(features["length"].filename).st_ino == inode
    assert computed() == []
    assert market.folders() == [data.build]


def test_prepared_twice_without_training_loses_nothing(market):
    features_of(market.prepare([1, 2, 3]))
    market.prepare([3, 4])
    computed()
    check(features_of(market.prepare([1, 2, 3, 4])), [1, 2, 3, 4])
    assert computed() == [4]


def test_where_files_cannot_be_linked_they_are_copied(market, monkeypatch):
    def no_link(*_):
        raise PermissionError(errno.EPERM, "no hard links here")

    features_of(market.prepare([1, 2, 3]))
    monkeypatch.setattr(os, "link", no_link)
    computed()
    check(features_of(market.prepare([3, 4])), [3, 4])
    assert computed() == [4]


def test_what_cannot_be_taken_over_is_told_and_computed_again(market, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    features_of(market.prepare([1, 2, 3]))
    monkeypatch.setattr(feature_folders, "_link", full)
    with pytest.warns(UserWarning, match="not taken over, its items are computed again .*No space left"):
        data = market.prepare([3, 4])
    computed()
    check(features_of(data), [3, 4])
    assert computed() == [3, 4]


def test_a_failing_prepare_leaves_the_store(market):
    data = market.prepare([1, 2, 3])
    features_of(data)
    with pytest.raises(DataError):
        market.prepare([2, 3], grade=-1)
    computed()
    check(features_of(data), [1, 2, 3])
    assert computed() == []


KILLED_PREPARE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Shop
from tfmmrank.data import prepare  # the function; its module is of the same name
module, folder = sys.modules["tfmmrank.data.prepare"], Path(sys.argv[2])
take_over = module.take_over
module.take_over = lambda *args: (take_over(*args), os.kill(os.getpid(), signal.SIGKILL))
prepare(Shop(folder).recipe(), folder / "out", progress=False)
"""


def test_prepare_killed_after_taking_over_leaves_the_old_dataset(market):
    data = market.prepare([1, 2, 3])
    features_of(data)
    command = [sys.executable, "-c", KILLED_PREPARE, str(Path(__file__).parent), str(market.shop.folder)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (leaving,) = market.shop.folder.glob(".out.partial-*")
    assert [path.name.split(".partial")[0] for path in leaving.glob("features/*/*")] == [f".{data.build}"]
    computed()
    again = Prepared.open(market.out)
    assert again.build == data.build
    check(features_of(again), [1, 2, 3])
    check(features_of(market.prepare([2, 3])), [2, 3])
    assert computed() == []
    assert list(market.shop.folder.glob(".out.partial-*")) == []


def test_other_settings_and_weights_are_another_store(market):
    data = market.prepare([1, 2])
    for make in (lambda: tower(), lambda: tower(dim=8)):
        item_features(data, make(), progress=False)
        assert computed() == [1, 2]
    other = tower()
    other.state = b"other weights"
    item_features(data, other, progress=False)
    assert computed() == [1, 2]
    assert len(list((market.out / "features").iterdir())) == 3


def test_settings_that_embed_does_not_depend_on_do_not_count(market):
    class Frozen(Lengths):
        def embed_config(self):
            return {"columns": self.columns}

    data = market.prepare([1, 2])
    for dim in (8, 16):
        item_features(data, Frozen(["title"], dim=dim, name="title"), progress=False)
    assert len(EMBEDDED) == 4
    assert market.folders() == [data.build]


def test_other_kinds_of_columns_are_another_store(market):
    data = market.prepare([1, 2])
    features_of(data)
    data.item_columns["title"] = "categorical"
    computed()
    features_of(data)
    assert computed() == [1, 2]


def test_what_was_not_used_since_the_last_prepare_goes_once_another_is_in_use(market):
    data = market.prepare([1, 2, 3])
    both = [tower(), tower(dim=8)]
    for each in both:
        item_features(data, each, progress=False)
    features_of(data, "name")
    for _ in range(2):  # recipes that take turns on one dataset do not push each other out
        data = market.prepare([1, 2, 3])
        assert len(market.folders()) == 2
        for each in both:
            item_features(data, each, progress=False)
    computed()
    data = market.prepare([1, 2, 3])
    item_features(data, both[0], progress=False)
    data = market.prepare([1, 2, 3])
    assert len(market.folders()) == 1
    assert len(market.folders("name")) == 1  # nothing of that name was used instead
    item_features(data, both[0], progress=False)
    features_of(data, "name")
    assert computed() == []


def test_stopped_by_an_error_goes_on_where_it_was(market, capfd):
    data = market.prepare(range(1, 21))
    stop_after(3, fail)
    with pytest.raises(tf.errors.OpError, match="stopped by the test"):
        features_of(data)
    (partial,) = market.folders()
    assert partial.startswith(f".{data.build}.partial-")
    computed()
    check(item_features(data, tower(), progress=True), range(1, 21))
    assert computed() == list(range(13, 21))
    assert market.folders() == [data.build]
    shown = capfd.readouterr().err
    assert "encode title" in shown
    assert "12/20" in shown  # at once, not when the first batch is done


def test_stopped_then_prepared_again_goes_on_too(market):
    stop_after(2, fail)
    with pytest.raises(tf.errors.OpError):
        features_of(market.prepare(range(1, 21)))
    computed()
    data = market.prepare(range(20, 0, -1))
    check(features_of(data), range(20, 0, -1))
    assert computed() == list(range(9, 21))
    assert market.folders() == [data.build]


def test_stopped_again_and_again_leaves_one_copy(market):
    data = market.prepare(range(1, 21))
    for _ in range(3):
        stop_after(1, fail)
        with pytest.raises(tf.errors.OpError):
            features_of(data)
        EMBEDDED.clear()
        assert len(market.folders()) == 1
    check(features_of(data), range(1, 21))
    assert computed() == list(range(13, 21))


KILLED = """
import os, signal, sys
import tests.data.test_feature_store as t
from tfmmrank.data import Prepared
t.feature_store.ROWS_AT_ONCE, t.feature_rows.FLUSH_SECONDS = 4, 0
t.stop_after(int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
t.features_of(Prepared.open(sys.argv[1]))
"""


@pytest.mark.slow
def test_killed_goes_on_from_the_last_flush(market):
    data = market.prepare(range(1, 41))
    for batches in (3, 2):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(data.path), str(batches)], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert data.build not in market.folders()
    check(features_of(data), range(1, 41))
    assert computed() == list(range(4 * 5 + 1, 41))
    assert market.folders() == [data.build]


def test_a_full_disk_is_told_and_leaves_nothing_that_looks_whole(market, monkeypatch):
    data = market.prepare(range(1, 21))
    write, full = feature_rows._ArrayFile.write, [True]

    def limited(self, rows, values):
        if full[0] and len(rows) and rows[-1] >= 8 and values.dtype == np.float16:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, rows, values)

    monkeypatch.setattr(feature_rows._ArrayFile, "write", limited)
    with pytest.raises(OSError, match='no room for the features of tower "title"; make some') as told:
        features_of(data)
    assert told.value.errno == errno.ENOSPC
    assert data.build not in market.folders()
    full[0] = False
    computed()
    check(features_of(data), range(1, 21))
    assert computed() == list(range(9, 21))


@pytest.mark.parametrize("spoil", ["cut", "empty", "gone", "json", "rows"])
def test_a_damaged_store_is_told_and_made_again(market, spoil):
    data = market.prepare([1, 2, 3])
    features_of(data)
    (folder,) = (market.out / "features").glob("title-*/*")
    if spoil == "cut":
        os.truncate(folder / "1.npy", 130)
    elif spoil == "empty":
        os.truncate(folder / "0.npy", 0)
    elif spoil == "gone":
        (folder / "digests.npy").unlink()
    elif spoil == "json":
        (folder / "features.json").write_text("{")
    else:
        np.save(folder / "1.npy", np.zeros((2, 1), np.float16))
    computed()
    with pytest.warns(UserWarning, match="is damaged, and made again"):
        check(features_of(data), [1, 2, 3])
    assert computed() == [1, 2, 3]
    assert market.folders() == [data.build]


def test_leavings_that_cannot_be_read_are_passed_over_and_removed(market):
    data = market.prepare([1, 2, 3])
    features_of(data)
    (folder,) = (market.out / "features").glob("title-*/*")
    home = folder.parent
    folder.rename(home / f".{data.build}.partial-cut")
    os.truncate(home / f".{data.build}.partial-cut" / "0.npy", 10)
    (home / f".{data.build}.partial-none").mkdir()
    computed()
    check(features_of(data), [1, 2, 3])
    assert computed() == [1, 2, 3]
    assert market.folders() == [data.build]


def test_two_at_once_compute_once(market, monkeypatch):
    data = market.prepare(range(1, 21))
    told = io.StringIO()  # not capfd: emptying that while another thread writes may lose what was written
    monkeypatch.setattr(sys, "stderr", told)
    inside, go = threading.Event(), threading.Event()
    stop_after(1, lambda: (inside.set(), go.wait(60)))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(item_features(data, tower(), progress=True))) for _ in range(2)
    ]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    while "waiting for another process" not in told.getvalue():
        assert threads[1].is_alive()
    go.set()
    for thread in threads:
        thread.join()
    for features in found:
        check(features, range(1, 21))
    assert len(found) == 2
    assert len(EMBEDDED) == 20


def test_without_locks_both_compute_and_nothing_breaks(market, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(feature_folders.fcntl, "flock", no_locks)
    data = market.prepare(range(1, 9))
    other = []
    stop_after(1, lambda: other.append(features_of(data)))  # a second one comes and ends while the first is at it
    check(features_of(data), range(1, 9))
    check(other[0], range(1, 9))
    assert market.folders() == [data.build]


def test_prepared_again_while_computing(market):
    old = market.prepare(range(1, 21))
    new = []
    stop_after(3, lambda: new.append(market.prepare(range(1, 25))))
    with pytest.raises(DataError, match="out: was prepared again meanwhile; open it again"):
        features_of(old)
    computed()
    check(features_of(new[0]), range(1, 25))
    assert set(computed()) <= set(range(1, 25))
    assert market.folders() == [new[0].build]


def test_rows_of_a_run_under_way_are_taken_over(market, monkeypatch):
    monkeypatch.setattr(feature_rows, "FLUSH_SECONDS", 0)
    old = market.prepare(range(1, 21))
    new = []

    def prepare_and_use():
        new.append(market.prepare(range(1, 25)))
        EMBEDDED.clear()
        check(features_of(new[0]), range(1, 25))
        assert computed() == list(range(13, 25))

    stop_after(3, prepare_and_use)
    with pytest.raises(DataError, match="was prepared again meanwhile"):
        features_of(old)
    check(features_of(new[0]), range(1, 25))
    assert market.folders() == [new[0].build]


def test_a_process_that_opened_the_earlier_dataset_keeps_its_items(market):
    old = market.prepare([1, 2, 3])
    new = market.prepare([4, 2])
    for data, lengths in ((old, [1, 2, 3]), (new, [4, 2]), (old, [1, 2, 3])):
        check(features_of(data), lengths)
    assert market.folders() == sorted([old.build, new.build])
    assert computed() == [1, 2, 3, 4]


class Wrong(Tower):
    """Embeds as it is told."""

    gives = staticmethod(lambda x: x)

    def preprocess(self, raw):
        return {"price": raw["price"]}

    def embed(self, features):
        return {"value": self.gives(features["price"])}


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda x: x[:1], r'"wrong": embed gave "value" of shape \(1,\) for 4 items; expected \[4, \.\.\.\]'),
        (tf.reduce_sum, r'embed gave "value" of shape \(\) for 4 items'),
        (lambda x: tf.cast(x, tf.bfloat16), r'embed gave "value" as bfloat16, which .npy files do not hold'),
        (tf.strings.as_string, r'embed gave "value" as string'),
    ],
)
def test_embed_gives_what_cannot_be_kept(market, gives, message):
    data = market.prepare(range(1, 11))
    wrong = Wrong(["price"], name="wrong")
    wrong.gives = gives
    with pytest.raises(ValueError, match=message):
        item_features(data, wrong, progress=False)
    assert market.folders("wrong") == []


def test_embed_gives_other_features_than_before(market):
    wrong = Wrong(["price"], name="wrong")
    item_features(market.prepare([1, 2]), wrong, progress=False)
    wrong.gives = lambda x: x[:, None]
    data = market.prepare([1, 2, 3])
    with pytest.raises(
        ValueError,
        match=r"\"wrong\": embed gave \{'value': 'float32 \[1\]'\}, and of other items \{'value': 'float32 \[\]'\}; "
        r"if its embed changed, embed_config or embed_state must change too: let them, or remove .*wrong-",
    ):
        item_features(data, wrong, progress=False)
    assert data.build not in market.folders("wrong")


def test_a_shop_in_memory(tmp_path, picture):
    shop = MemoryShop(tmp_path, picture)
    features = item_features(shop, Wrong(["price"], name="wrong"), progress=False)
    np.testing.assert_array_equal(features["value"], shop.catalogue.rows(np.arange(40))["price"])
    folder = Path(features["value"].filename).parent
    assert json.loads((folder / "features.json").read_text()) == ["value"]
