"""Old or new, never a mixture."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from tfmmrank import atomic
from tfmmrank.atomic import recover, replace_directory, write_text


def read(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_makes_and_replaces_a_directory(tmp_path):
    target = tmp_path / "deep" / "out"
    for text in ("one", "two"):
        with replace_directory(target) as aside:
            assert list(aside.iterdir()) == []
            (aside / text).write_text(text)
        assert read(target) == {text: text}
    assert os.listdir(target.parent) == ["out"]


def test_failure_leaves_the_old_one(tmp_path):
    target = tmp_path / "out"
    with replace_directory(target) as aside:
        (aside / "a").write_text("old")

    def fail() -> None:
        with replace_directory(target) as aside:
            (aside / "a").write_text("new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert read(target) == {"a": "old"}
    assert os.listdir(tmp_path) == ["out"]


def test_what_comes_before_the_rename_stays_where_nothing_is_to_be_replaced(tmp_path, monkeypatch):
    target, sync = tmp_path / "out", atomic.sync_directory

    def write(text: str) -> None:
        with replace_directory(target, replace=False) as aside:
            (aside / "a").write_text(text)

    def sync_slowly(folder) -> None:
        monkeypatch.setattr(atomic, "sync_directory", sync)
        write("first")
        sync(folder)

    monkeypatch.setattr(atomic, "sync_directory", sync_slowly)
    for text in ("second", "third"):
        with pytest.raises(FileExistsError, match="out: was written by another process meanwhile, and stays"):
            write(text)
    assert read(target) == {"a": "first"}
    assert os.listdir(tmp_path) == ["out"]


def test_without_exchange_the_swap_is_two_renames(tmp_path, monkeypatch):
    class NoExchange:
        def __init__(self, *_args, **_kwargs):
            pass

    monkeypatch.setattr(atomic.ctypes, "CDLL", NoExchange)
    target = tmp_path / "out"
    for text in ("old", "new"):
        with replace_directory(target) as aside:
            (aside / "a").write_text(text)
    assert read(target) == {"a": "new"}
    assert os.listdir(tmp_path) == ["out"]


def test_recovers_from_a_kill_between_two_renames(tmp_path):
    target = tmp_path / "out"
    with replace_directory(target) as aside:
        (aside / "a").write_text("old")
    os.rename(target, tmp_path / ".out.old")  # what the fallback does first
    recover(target)
    assert read(target) == {"a": "old"}
    recover(target)  # again: nothing to do
    assert read(target) == {"a": "old"}


KILLED = (
    "import os, signal, sys; from tfmmrank.atomic import replace_directory\n"
    "with replace_directory(sys.argv[1]) as aside:\n"
    "    (aside / 'a').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
)


def test_leavings_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False)
    (leaving,) = os.listdir(tmp_path)
    assert leaving.startswith(".out.partial-")
    (tmp_path / ".out.partial-file").write_text("not a directory, and so not ours")
    with replace_directory(tmp_path / "out") as living, replace_directory(tmp_path / "out"):
        assert living.is_dir()
        assert leaving not in os.listdir(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".out.partial-file", "out"]


def test_two_writers_of_one_process(tmp_path):
    target = tmp_path / "out"
    with replace_directory(target) as slow:
        (slow / "a").write_text("slow")
        with replace_directory(target) as fast:
            (fast / "a").write_text("fast")
        assert read(target) == {"a": "fast"}
        assert read(slow) == {"a": "slow"}
    assert read(target) == {"a": "slow"}
    assert os.listdir(tmp_path) == ["out"]


def test_many_threads_write_one_directory(tmp_path):
    target, failed = tmp_path / "out", []

    def write(number: int) -> None:
        try:
            for turn in range(10):
                with replace_directory(target) as aside:
                    for name in "ab":
                        (aside / name).write_text(f"{number} {turn}")
        except Exception as error:  # told by the assertion below
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(set(read(target).values())) == 1
    assert os.listdir(tmp_path) == ["out"]


def test_a_directory_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    taken, real = [], atomic.fcntl.flock

    def flock(descriptor, how):
        if not taken:  # a writer that starts just now takes the new directory for a leaving
            taken.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            os.rmdir(taken[0])
        real(descriptor, how)

    monkeypatch.setattr(atomic.fcntl, "flock", flock)
    with replace_directory(tmp_path / "out") as aside:
        assert str(aside) not in taken
        (aside / "a").write_text("new")
    assert read(tmp_path / "out") == {"a": "new"}


def test_others_may_read_what_is_written(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain.txt").touch()
    with replace_directory(tmp_path / "out"):
        pass
    write_text(tmp_path / "out.txt", "x")
    for ours, plain in (("out", "plain"), ("out.txt", "plain.txt")):
        assert stat.S_IMODE(os.stat(tmp_path / ours).st_mode) == stat.S_IMODE(os.stat(tmp_path / plain).st_mode)


def test_a_text_that_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\udcff")
    assert read(tmp_path) == {"a.txt": "old"}


def test_a_link_keeps_pointing_to_what_is_replaced(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with replace_directory(tmp_path / "link") as aside:
        (aside / "a").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert read(real) == {"a": "new"}
