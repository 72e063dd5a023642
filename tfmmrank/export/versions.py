"""A model's versions: numbered folders in one folder, as TensorFlow Serving looks for them."""

from __future__ import annotations

import contextlib
from pathlib import Path

#: In a version's folder: what its ranker was trained on, for monitors; written by ``export.statistics``.
STATISTICS_FILE = "assets.extra/training_statistics.json"
_LARGEST = 2**63 - 1  # TensorFlow Serving's messages hold a version in an int64


def version_folders(model_dir: Path) -> dict[int, Path]:
    """The folders named by a number in a model's folder, by that number; larger ones than an int64 are no versions.

    Raises:
        OSError: when the model's folder is not there.
    """
    folders = {int(path.name): path for path in model_dir.iterdir() if path.name.isdecimal() and path.is_dir()}
    return {version: path for version, path in folders.items() if version <= _LARGEST}


def versions_of(model_dir: str | Path) -> list[int]:
    """The versions in a model's folder, ascending; empty when there is no such folder."""
    model_dir = Path(model_dir)
    if not model_dir.is_dir():
        return []
    return sorted(version_folders(model_dir))


def choose_version(model_dir: str | Path, version: int | None = None) -> int:
    """The version to write: the one asked for, or the next.

    Raises:
        ValueError: when it is not a positive number, or exists, or when the folder holds something else.
    """
    if Path(model_dir).is_dir():
        other = [path.name for path in Path(model_dir).iterdir() if not path.name.isdecimal() and path.name[0] != "."]
        if other:
            raise ValueError(f'{model_dir}: holds "{min(other)}", which is no version of a model; name another folder')
    known = versions_of(model_dir)
    if version is None:
        return known[-1] + 1 if known else 1
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= _LARGEST:
        raise ValueError(f"version is {version!r}; expected a whole number from 1 to {_LARGEST}")
    if version in known:
        raise ValueError(
            f"{Path(model_dir) / str(version)}: exists, and a server may be reading it; leave the version out to write "
            f"{known[-1] + 1}"
        )
    return version


def find_version(model_dir: str | Path, version: int | None = None) -> Path:
    """The folder of a version, the latest by default.

    Raises:
        FileNotFoundError: when there is none.
    """
    model_dir = Path(model_dir)
    known = versions_of(model_dir)
    if not model_dir.is_dir():
        raise FileNotFoundError(f"{model_dir}: is no folder; write a model with `tfmmrank export`")
    if not known:
        raise FileNotFoundError(
            f"{model_dir}: holds no version of a model (a folder named by a number); {_where_one_is(model_dir)}"
        )
    if version is not None and version not in known:
        raise FileNotFoundError(f"{model_dir}: has no version {version}; versions: {', '.join(map(str, known))}")
    return model_dir / str(known[-1] if version is None else version)


def _where_one_is(folder: Path) -> str:
    """What somebody may have meant who took a folder for a model's."""
    if (folder / "saved_model.pb").is_file():
        return f"give its parent, {folder.resolve().parent}"
    for within in sorted(folder.iterdir()):
        with contextlib.suppress(OSError):  # not ours to read, as a volume's lost+found
            if versions_of(within):
                return f"{within} does"
    return "write one with `tfmmrank export`"
