import contextlib
import io
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from tfmmrank.encoders.torch_file import read_torch_file

REFERENCES = Path(__file__).parent / "references"
FORMATS = ["checkpoint_zip.pth", "checkpoint_legacy.pth"]


@pytest.mark.parametrize("name", FORMATS)
def test_reads_what_pytorch_wrote(name):
    """The files are PyTorch's own; see make_image_references.py for what went in."""
    tensors = read_torch_file(REFERENCES / name)
    numbers = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 8
    expected = {
        "floats": numbers,
        "permuted": numbers.transpose(2, 0, 1),
        "part": numbers[1, 1:, ::2],
        "doubles": numbers.astype(np.float64),
        "halves": numbers.astype(np.float16),
        "bfloats": numbers,
        "longs": np.array([-1, 2**40]),
        "bytes": np.array([0, 255], np.uint8),
        "flags": np.array([True, False]),
        "scalar": np.float32(2.5),
        "none": np.zeros([0, 3], np.float32),
        "parameter": np.ones(2, np.float32),
    }
    assert list(tensors) == list(expected)
    for key, value in expected.items():
        assert tensors[key].dtype == value.dtype, key
        np.testing.assert_array_equal(tensors[key], value, err_msg=key)
        assert tensors[key].flags.writeable


def test_what_else_training_saved_is_left():
    assert {name: value.tolist() for name, value in read_torch_file(REFERENCES / "training_legacy.pth").items()} == {
        "weight": [0.0, 1.0, 2.0, 3.0]
    }


@pytest.mark.parametrize("name", FORMATS)
def test_cut_short_anywhere_is_one_clear_error(name, tmp_path):
    whole = (REFERENCES / name).read_bytes()
    path = tmp_path / name
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=name):
            read_torch_file(path)


@pytest.mark.parametrize("name", FORMATS)
def test_changed_bytes_never_do_worse_than_a_clear_error(name, tmp_path, rng):
    whole = (REFERENCES / name).read_bytes()
    path = tmp_path / name
    for _ in range(300):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(ValueError):  # any other error fails the test
            assert all(isinstance(value, np.ndarray) for value in read_torch_file(path).values())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"<html>", pickle.dumps(7, 2), b"\x80\x02"])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.bin: .*PyTorch checkpoint"):
        read_torch_file(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        read_torch_file(tmp_path / "absent.pth")


class _Calls:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def _with_pickle(path, value, protocol, zipped):
    """A checkpoint whose state is this pickle, otherwise as PyTorch writes it."""
    state = pickle.dumps(value, protocol)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", state)
    else:
        head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + state + pickle.dumps([], 2))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_is_refused_and_does_not_run(zipped, protocol, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    commands = [
        (_Calls(os.system, f"touch {mark}"), "system"),
        (_Calls(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (_Calls(shutil.copy, str(path), str(mark)), "shutil"),
    ]
    for command, named in commands:
        _with_pickle(path, OrderedDict(weight=command), protocol, zipped)
        with pytest.raises(ValueError, match=rf"evil\.pth: refused: it asks for \S*{named}.*state_dict"):
            read_torch_file(path)
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_other_values_than_tensors_are_named(zipped, tmp_path):
    path = tmp_path / "run.pth"
    for value, message in [({"epoch": 3}, "entry 'epoch' is no tensor"), ([1, 2], "holds a list")]:
        _with_pickle(path, value, 2, zipped)
        with pytest.raises(ValueError, match=message):
            read_torch_file(path)
    _with_pickle(path, {"state_dict": OrderedDict(), "epoch": 3}, 2, zipped)
    assert read_torch_file(path) == {}


def test_a_tensor_that_reaches_out_of_its_numbers_is_refused(tmp_path):
    """The zip file's pickle with another offset: numpy would read memory that is not the tensor's."""
    out = io.BytesIO()
    with zipfile.ZipFile(REFERENCES / FORMATS[0]) as source, zipfile.ZipFile(out, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith("data.pkl"):
                changed = content.replace(b"QK\x00K\x02K\x03K\x04\x87", b"QK\x01K\x02K\x03K\x04\x87", 1)
                assert changed != content
                content = changed
            target.writestr(member.filename, content)
    path = tmp_path / "far.pth"
    path.write_bytes(out.getvalue())
    with pytest.raises(ValueError, match=r'far\.pth: tensor "floats" of shape \(2, 3, 4\) reaches out'):
        read_torch_file(path)
