"""Weights out of PyTorch checkpoints, without PyTorch and without running what a pickle asks for."""

from __future__ import annotations

import io
import math
import os
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_BFLOAT16 = "torch.BFloat16Storage"
_DTYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    _BFLOAT16: "<u2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_GLOBALS = {_DICT, _TENSOR, _PARAMETER, *_DTYPES}


class _BrokenError(Exception):
    """What is wrong with a file, without the file's name."""


class _Global(NamedTuple):
    name: str


class _Storage(NamedTuple):
    kind: str
    key: str
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a checkpoint that ``torch.save(model.state_dict(), path)`` wrote.

    Both formats are read: the zip archive, and the one from before PyTorch 1.6. The pickle inside is interpreted here,
    and only dictionaries, lists, numbers, strings and tensors are understood, so that a file cannot run code.

    Args:
        path: the file, ``.pth``, ``.pt`` or ``.bin``. A dictionary whose ``state_dict`` holds the tensors will do too.

    Returns:
        Arrays by name, in the file's order; bfloat16 as float32, else of the file's dtype.

    Raises:
        ValueError: when the file is cut short, is no checkpoint, or holds other things than tensors.
        OSError: when it cannot be opened.

    Source: ``torch/serialization.py`` of PyTorch 2.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            return _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        except _BrokenError as error:
            raise ValueError(f"{path}: {error}") from None
        except Exception as error:  # zipfile and pickletools raise nearly every kind for broken bytes
            raise ValueError(f"{path}: not a whole PyTorch checkpoint ({type(error).__name__}: {error})") from error


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        root = next((name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")), None)
        if root is None:
            raise _BrokenError("a zip archive without data.pkl; expected a PyTorch checkpoint")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise _BrokenError("a compressed zip archive; PyTorch's checkpoints are not compressed")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise _BrokenError("numbers are big-endian; expected little-endian")
        tensors = _state_dict(_interpret(io.BytesIO(archive.read(f"{root}data.pkl"))))
        return _arrays(tensors, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    """Reads magic number, protocol version, system, state, storage keys; then each storage's length and bytes."""
    file.seek(0)
    if file.read(2) != b"\x80\x02":  # a pickle of protocol 2
        raise _BrokenError("not a PyTorch checkpoint: neither a zip archive nor a pickle")
    file.seek(0)
    if _interpret(file) != _LEGACY_MAGIC:
        raise _BrokenError("a pickle, but not a PyTorch checkpoint")
    _interpret(file)
    if not _interpret(file)["little_endian"]:
        raise _BrokenError("numbers are big-endian; expected little-endian")
    known: dict[str, _Storage] = {}
    tensors = _state_dict(_interpret(file, known))
    contents = {}
    for key in _interpret(file):
        _read_exactly(file, 8)  # its length, which the state says too
        contents[key] = _read_exactly(file, _size(known[key]))
    return _arrays(tensors, lambda storage: contents[storage.key])


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    left = os.fstat(file.fileno()).st_size - file.tell()
    if count > left:
        raise _BrokenError(f"cut short: {count:,} bytes of a tensor expected, {max(left, 0):,} left")
    return file.read(count)


def _size(storage: _Storage) -> int:
    return storage.length * np.dtype(_DTYPES[storage.kind]).itemsize


def _state_dict(root: Any) -> dict[str, _Tensor]:
    if isinstance(root, dict) and isinstance(root.get("state_dict"), dict):
        root = root["state_dict"]
    if not isinstance(root, dict):
        raise _BrokenError(
            f"holds a {type(root).__name__.lstrip('_').lower()}; expected a dictionary of tensors by name"
        )
    for name, value in root.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise _BrokenError(f"entry {name!r} is no tensor; expected what model.state_dict() gives")
    return root


def _arrays(tensors: dict[str, _Tensor], read: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    storages: dict[str, np.ndarray] = {}
    arrays = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        if storage.key not in storages:
            content = read(storage)
            if len(content) != _size(storage):
                raise _BrokenError(f'tensor "{name}" has {len(content):,} bytes; expected {_size(storage):,}')
            storages[storage.key] = _decode(content, storage.kind)
        flat = storages[storage.key]
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        size, negative = int(math.prod(map(int, shape))), min(0, offset, *shape, *strides) < 0
        if negative or size > flat.size or (size and last >= flat.size):
            raise _BrokenError(f'tensor "{name}" of shape {shape} reaches out of its {flat.size:,} numbers')
        steps = [step * flat.itemsize for step in strides]
        # A copy: tensors that shared numbers in PyTorch do not share them here.
        arrays[name] = np.lib.stride_tricks.as_strided(flat[offset:], shape, steps).copy()
    return arrays


def _decode(content: bytes, kind: str) -> np.ndarray:
    values = np.frombuffer(content, _DTYPES[kind])
    if kind == _BFLOAT16:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _reduce(function: Any, arguments: tuple) -> Any:
    """Calls one of the few functions that a checkpoint may name."""
    if function == _Global(_DICT):
        return dict(*arguments)
    if function == _Global(_TENSOR):
        storage, offset, shape, strides = arguments[:4]
        if isinstance(storage, _Storage) and all(isinstance(n, int) for n in (offset, *shape, *strides)):
            return _Tensor(storage, offset, shape, strides)
    if function == _Global(_PARAMETER) and isinstance(arguments[0], _Tensor):
        return arguments[0]
    raise _BrokenError(f"calls {function} in a way that PyTorch's checkpoints do not")


def _persistent(identity: Any) -> _Storage:
    """A storage from ``("storage", kind, key, device, count[, view])``."""
    what, kind, key, _, length, *view = identity
    if what != "storage" or not isinstance(kind, _Global) or kind.name not in _DTYPES or view not in ([], [None]):
        raise _BrokenError(f"refers to {identity!r}; expected a storage of numbers")
    if not isinstance(length, int) or length < 0 or not isinstance(key, str):
        raise _BrokenError(f"storage {key!r} has {length!r} numbers")
    return _Storage(kind.name, key, length)


def _find(name: str) -> _Global:
    if name not in _GLOBALS:
        raise _BrokenError(
            f"refused: it asks for {name}, and only tensors are read. Save the weights alone, in PyTorch: "
            "torch.save(model.state_dict(), path)"
        )
    return _Global(name)


def _interpret(file: BinaryIO, storages: dict[str, _Storage] | None = None) -> Any:
    """One pickle's value, by a stack machine that knows the opcodes PyTorch's pickles have.

    Args:
        file: where it is read from, up to the pickle's end.
        storages: gets the storages that the pickle refers to, by key.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []  # the stacks below each open mark
    memo: dict[int, Any] = {}

    def pop_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, marked.pop()
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                marked.append(stack)
                stack = []
            case "TUPLE":
                items = pop_mark()
                stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = pop_mark()
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                pairs = pop_mark()
                stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
            case "GLOBAL":
                stack.append(_find(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_find(f"{module}.{name}"))
            case "REDUCE":
                arguments = stack.pop()
                stack[-1] = _reduce(stack[-1], arguments)
            case "BUILD":  # attributes of the dictionary, such as its _metadata: versions of PyTorch's layers
                stack.pop()
            case "BINPERSID":
                stack[-1] = storage = _persistent(stack[-1])
                if storages is not None:
                    storages[storage.key] = storage
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case other:
                raise _BrokenError(f"refused: its pickle has the opcode {other}, which PyTorch's checkpoints have not")
    raise _BrokenError("a pickle without an end")
