"""Old or new, never a mixture."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tfmmrank import atomic
from tfmmrank.atomic import recover, replace_directory


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


def test_leavings_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for pid in (dead.stdout.decode().strip(), os.getppid()):
        (tmp_path / f".out.partial-{pid}").mkdir()
    (tmp_path / ".out.partial-mine").mkdir()  # not ours to judge
    with replace_directory(tmp_path / "out"):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted(["out", f".out.partial-{os.getppid()}", ".out.partial-mine"])


def test_a_link_keeps_pointing_to_what_is_replaced(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with replace_directory(tmp_path / "link") as aside:
        (aside / "a").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert read(real) == {"a": "new"}
