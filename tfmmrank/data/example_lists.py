"""ExampleListWithContext in TFRecords, without TensorFlow: preparing data must not cost its memory and start-up.

The message types are tensorflow.Example and tensorflow.serving.ExampleListWithContext, declared here field by field; a
test parses what is written with TensorFlow's own classes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto


def _declare() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="tfmmrank/example_lists.proto", package="tfmmrank.wire", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, int, str, bool], oneof: str | None = None) -> Any:
        declared = file.message_type.add(name=name)
        if oneof:
            declared.oneof_decl.add(name=oneof)
        for field, number, kind, type_name, repeated in fields:
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            added = declared.field.add(name=field, number=number, type=kind, label=label)
            if type_name:
                added.type_name = f".tfmmrank.wire.{type_name}"
            if oneof:
                added.oneof_index = 0
        return declared

    def map_entry(owner: Any, name: str, value: str) -> None:
        """A map field's entry, from string to another message."""
        entry = owner.nested_type.add(name=name)
        entry.options.map_entry = True
        kind, optional = _FIELD.TYPE_MESSAGE, _FIELD.LABEL_OPTIONAL
        entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=optional)
        entry.field.add(name="value", number=2, type=kind, label=optional, type_name=f".tfmmrank.wire.{value}")

    message("BytesList", ("value", 1, _FIELD.TYPE_BYTES, "", True))
    message("FloatList", ("value", 1, _FIELD.TYPE_FLOAT, "", True))
    message("Int64List", ("value", 1, _FIELD.TYPE_INT64, "", True))
    kinds = [("bytes_list", 1, "BytesList"), ("float_list", 2, "FloatList"), ("int64_list", 3, "Int64List")]
    message("Feature", *[(n, i, _FIELD.TYPE_MESSAGE, t, False) for n, i, t in kinds], oneof="kind")
    features = message("Features", ("feature", 1, _FIELD.TYPE_MESSAGE, "Features.FeatureEntry", True))
    map_entry(features, "FeatureEntry", "Feature")
    message("Example", ("features", 1, _FIELD.TYPE_MESSAGE, "Features", False))
    message(
        "ExampleListWithContext",
        ("examples", 1, _FIELD.TYPE_MESSAGE, "Example", True),
        ("context", 2, _FIELD.TYPE_MESSAGE, "Example", False),
    )
    message("FeatureList", ("feature", 1, _FIELD.TYPE_MESSAGE, "Feature", True))
    lists = message("FeatureLists", ("feature_list", 1, _FIELD.TYPE_MESSAGE, "FeatureLists.FeatureListEntry", True))
    map_entry(lists, "FeatureListEntry", "FeatureList")
    message(
        "SequenceExample",
        ("context", 1, _FIELD.TYPE_MESSAGE, "Features", False),
        ("feature_lists", 2, _FIELD.TYPE_MESSAGE, "FeatureLists", False),
    )
    return message_factory.GetMessages([file], pool=descriptor_pool.DescriptorPool())


_MESSAGES = _declare()
ExampleListWithContext = _MESSAGES["tfmmrank.wire.ExampleListWithContext"]
SequenceExample = _MESSAGES["tfmmrank.wire.SequenceExample"]


def set_features(example: Any, values: Mapping[str, Any]) -> None:
    """Sets an Example's features: bytes, int, float, or a sequence of floats."""
    feature = example.features.feature
    for name, value in values.items():
        if isinstance(value, bytes):
            feature[name].bytes_list.value.append(value)
        elif isinstance(value, int):
            feature[name].int64_list.value.append(value)
        elif isinstance(value, float):
            feature[name].float_list.value.append(value)
        else:
            feature[name].float_list.value.extend(value)


def serialize_list(context: Mapping[str, Any], examples: Iterable[Mapping[str, Any]]) -> bytes:
    """One ExampleListWithContext, serialized; values as in ``set_features``."""
    message = ExampleListWithContext()
    message.context.SetInParent()
    set_features(message.context, context)
    for values in examples:
        set_features(message.examples.add(), values)
    return message.SerializeToString(deterministic=True)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_record(file: BinaryIO, record: bytes) -> None:
    """Appends one record in TFRecord framing: length, its checksum, the record, its checksum."""
    length = struct.pack("<Q", len(record))
    file.write(length + _masked_crc(length) + record + _masked_crc(record))


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file. Raises ValueError where it is cut short or damaged."""
    for number, record in enumerate(read_records_or_damage(path), 1):
        if record is None:
            raise ValueError(f"{path}: record {number} is cut short or damaged")
        yield record


def read_records_or_damage(path: Path) -> Iterator[bytes | None]:
    """The records of a TFRecord file, None for one that is not what was written.

    Raises ValueError where the file is cut short, or it is unknown where the next record begins.
    """
    with open(path, "rb") as file:
        number = 0
        while header := file.read(12):
            number += 1
            if len(header) < 12 or _masked_crc(header[:8]) != header[8:]:
                raise ValueError(f"{path}: record {number} is damaged; is this a TFRecord file?")
            (length,) = struct.unpack("<Q", header[:8])
            record, checksum = file.read(length), file.read(4)
            if len(record) < length or len(checksum) < 4:
                raise ValueError(f"{path}: record {number} is cut short or damaged")
            yield record if checksum == _masked_crc(record) else None
