"""TFRecord files and the `tf.train.Example` messages in them, without TensorFlow.

A record is `uint64 length, uint32 crc(length), bytes, uint32 crc(bytes)`, little-endian, where crc is a masked CRC-32C
(`tensorflow/core/lib/io/record_writer.h`, `lib/hash/crc32c.h`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")


def masked_crc(data: bytes) -> int:
    """CRC-32C as record files store it: rotated by 15 bits and shifted, so that a CRC of CRCs stays a good one."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record_places(file: Path) -> Iterator[tuple[int, int]]:
    """Offset and length of the bytes of every record, from the headers alone.

    Raises:
        ValueError: a header is damaged, or the file ends within a record.
        FileNotFoundError: it is missing.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        place, number = 0, 0
        while place < size:
            stream.seek(place)
            header = stream.read(HEADER.size)
            if len(header) < HEADER.size:
                raise ValueError(f"{file}, record {number}: the file was cut short")
            length, crc = HEADER.unpack(header)
            if masked_crc(header[:8]) != crc:
                raise ValueError(
                    f"{file}, record {number}: the checksum of its length is wrong: not a TFRecord, or damaged"
                )
            if place + HEADER.size + length + FOOTER.size > size:
                raise ValueError(f"{file}, record {number}: the file was cut short")
            yield place + HEADER.size, length
            place += HEADER.size + length + FOOTER.size
            number += 1


def read_record(file: Path, place: int, length: int) -> bytes:
    """The bytes of one record.

    Raises:
        ValueError: their checksum is wrong, or the file has become shorter.
    """
    with file.open("rb") as stream:
        stream.seek(place)
        data, footer = stream.read(length), stream.read(FOOTER.size)
    if len(data) < length or len(footer) < FOOTER.size:
        raise ValueError(f"{file}: the file was cut short")
    if masked_crc(data) != FOOTER.unpack(footer)[0]:
        raise ValueError(f"{file}: the checksum of the record at byte {place} is wrong: it is damaged")
    return data


def parse_example(data: bytes) -> dict[str, list[bytes] | np.ndarray]:
    """The features of a `tf.train.Example`, or of a `tf.train.SequenceExample` (its lists one after the other).

    Returns:
        Per feature a list of bytes, or an array of float32 or int64.

    Raises:
        ValueError: it is no such message.
    """
    try:
        example = _messages()["Example"].FromString(data)
        features = dict(example.features.feature)
        if example.HasField("feature_lists"):  # field 2: only a SequenceExample has it, whose field 1 is its context
            lists = _messages()["SequenceExample"].FromString(data).feature_lists.feature_list
            return {
                **{key: _values(feature) for key, feature in features.items()},
                **{key: _joined([_values(feature) for feature in steps.feature]) for key, steps in lists.items()},
            }
    except message.DecodeError as error:
        raise ValueError(f"the record is no tf.train.Example ({error})") from None
    return {key: _values(feature) for key, feature in features.items()}


def _values(feature: Any) -> list[bytes] | np.ndarray:
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        return list(feature.bytes_list.value)
    if kind == "float_list":
        return np.array(feature.float_list.value, np.float32)
    return np.array(feature.int64_list.value, np.int64)


def _joined(steps: list[list[bytes] | np.ndarray]) -> list[bytes] | np.ndarray:
    if steps and isinstance(steps[0], np.ndarray):
        return np.concatenate(steps)
    return [value for step in steps for value in step]


@cache
def _messages() -> dict[str, Any]:
    """Classes for `tensorflow/core/example/{example,feature}.proto`, from a description made here."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="embodied/example.proto", package="embodied_tf", syntax="proto3")

    def add(name: str, **members: tuple[int, int, bool, str | None]) -> Any:
        made = file.message_type.add(name=name)
        for member, (number, kind, repeated, of) in members.items():
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            one = made.field.add(name=member, number=number, type=kind, label=label)
            if of:
                one.type_name = f".embodied_tf.{of}"
        return made

    def add_map(owner: Any, name: str, value: str) -> None:
        entry = owner.nested_type.add(name="".join(word.title() for word in name.split("_")) + "Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
        of = f".embodied_tf.{value}"
        entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL, type_name=of)
        of = f".embodied_tf.{owner.name}.{entry.name}"
        owner.field.add(name=name, number=1, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED, type_name=of)

    add("BytesList", value=(1, field.TYPE_BYTES, True, None))
    add("FloatList", value=(1, field.TYPE_FLOAT, True, None))
    add("Int64List", value=(1, field.TYPE_INT64, True, None))
    kinds = {"bytes_list": "BytesList", "float_list": "FloatList", "int64_list": "Int64List"}
    feature = add(
        "Feature", **{key: (n, field.TYPE_MESSAGE, False, of) for n, (key, of) in enumerate(kinds.items(), start=1)}
    )
    feature.oneof_decl.add(name="kind")
    for one in feature.field:
        one.oneof_index = 0
    add_map(add("Features"), "feature", "Feature")
    add("FeatureList", feature=(1, field.TYPE_MESSAGE, True, "Feature"))
    add_map(add("FeatureLists"), "feature_list", "FeatureList")
    lists = (2, field.TYPE_MESSAGE, False, "FeatureLists")
    add("Example", features=(1, field.TYPE_MESSAGE, False, "Features"), feature_lists=lists)
    add("SequenceExample", context=(1, field.TYPE_MESSAGE, False, "Features"), feature_lists=lists)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("Example", "SequenceExample")
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"embodied_tf.{n}")) for n in names}
