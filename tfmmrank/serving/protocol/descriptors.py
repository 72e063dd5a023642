"""Protobuf messages declared as tables, for those whose generated classes are missing or cost all of TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
}

Fields = Mapping[str, tuple[int, str]]


def declare_messages(
    file_name: str,
    package: str,
    messages: Mapping[str, Fields],
    pool: descriptor_pool.DescriptorPool,
    imports: Sequence[str] = (),
) -> dict[str, Any]:
    """Declares a proto3 file in a pool; returns its message classes by name.

    Args:
        file_name: the file's name within the pool.
        package: the messages' package.
        messages: message to {field: (number, type)}. A type is a scalar's name, a message of this package, or another
            package's message by its full name; in brackets it is repeated; ``map T`` maps strings to T.
        pool: a private one, so that a generated class of the same name does no harm.
        imports: files of the pool whose messages the fields use.
    """
    file = descriptor_pb2.FileDescriptorProto(name=file_name, package=package, syntax="proto3", dependency=imports)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, f".{package}", name, field, number, kind)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _add_field(message: Any, scope: str, owner: str, name: str, number: int, kind: str) -> None:
    repeated = kind.startswith(("[", "map "))
    label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, label=label)
    if kind.startswith("map "):
        entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, scope, "", "key", 1, "string")
        _add_field(entry, scope, "", "value", 2, kind.removeprefix("map "))
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f"{scope}.{owner}.{entry.name}"
        return
    kind = kind.strip("[]")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{kind}" if "." in kind else f"{scope}.{kind}"
