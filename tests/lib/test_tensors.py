"""Files of tensors: read as they were written by hand, and refused where they are damaged."""

import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib.errors import UserError
from experiments.lib.tensors import read_tensors, write_tensors

DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "BOOL": bool,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip


def by_hand(header, data, pad=""):
    text = header if isinstance(header, str) else json.dumps(header)
    head = (text + pad).encode()
    return struct.pack("<Q", len(head)) + head + data


def entry(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("pad", ["", "   "], ids=["packed", "padded"])
def test_reads_what_was_written_by_hand(tmp_path, pad):
    path = tmp_path / "a.safetensors"
    a, b = np.arange(6, dtype="<f4").reshape(2, 3), np.array([[7]], "<i8")
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry(24, 32, [1, 1], "I64"),
        "a": entry(0, 24, [2, 3]),
        "none": entry(32, 32, [0, 5]),
        "scalar": entry(32, 36, []),
    }
    path.write_bytes(by_hand(header, a.tobytes() + b.tobytes() + struct.pack("<f", 1.5), pad))
    found = read_tensors(path)
    assert list(found) == ["a", "b", "none", "scalar"]
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], b)
    assert found["none"].shape == (0, 5)
    assert (found["scalar"].shape, float(found["scalar"])) == ((), 1.5)
    assert not found["a"].flags.writeable


def test_writes_every_dtype_and_layout_as_the_format_asks(tmp_path):
    path = tmp_path / "a.safetensors"
    rng = np.random.default_rng(0)
    tensors = {code: (rng.normal(size=(2, 3)) * 3).astype(d) for code, d in DTYPES.items()}
    tensors |= {"turned": np.arange(6.0).reshape(2, 3).T, "big-endian": np.arange(3, dtype=">i4")}
    tensors |= {"scalar": np.array(2.5), "none": np.zeros((0, 2))}
    write_tensors(path, tensors)
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    assert header.pop("__metadata__") == {"format": "pt"}
    assert {code: header[code]["dtype"] for code in DTYPES} == {code: code for code in DTYPES}
    begin, end = header["turned"]["data_offsets"]
    np.testing.assert_array_equal(
        np.frombuffer(raw[8 + length :][begin:end], "<f8"), [0, 3, 1, 4, 2, 5]
    )
    found = read_tensors(path)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert (found[name].shape, found[name].dtype) == (
            tensor.shape, tensor.dtype.newbyteorder("<")
        )  # fmt: skip
        np.testing.assert_array_equal(found[name], tensor)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


DATA = bytes(16)
TWO = {"a": entry(0, 8, [2]), "b": entry(8, 16, [2])}
REFUSES = [
    ("5 bytes; expected a safetensors file", b"12345"),
    ("a header of 1000 bytes in a file of 24; expected", struct.pack("<Q", 1000) + DATA),
    ("a header of 17 bytes in a file of 24; expected", struct.pack("<Q", 17) + DATA),
    (r"a header of \d{19,} bytes in a file of 24", b"\xff" * 8 + DATA),
    ("header: .*; expected JSON", by_hand("{", DATA)),
    ("header: .*utf-8.*; expected JSON", struct.pack("<Q", 2) + b"\xff\xff"),
    ("header: .*; expected JSON", by_hand("[" * 100_000, b"")),
    ("header is no object; expected JSON", by_hand([1], b"")),
    ("header: a stands there twice; expected JSON", by_hand('{"a": 1, "a": 2}', b"")),
    ("a: 3; expected dtype, shape, data_offsets", by_hand({"a": 3}, b"")),
    ("a: .*; expected dtype, shape", by_hand({"a": {"dtype": "F32", "shape": []}}, b"")),
    ("a: dtype C64; expected one of F64, F32", by_hand({"a": entry(0, 16, [2], "C64")}, DATA)),
    (r"a: dtype \[1\]; expected one of", by_hand({"a": entry(0, 16, [2], [1])}, DATA)),
    (r"a: shape \[-2, -2\]; expected integers", by_hand({"a": entry(0, 16, [-2, -2])}, DATA)),
    (r"a: shape \[True\]; expected integers", by_hand({"a": entry(0, 4, [True])}, DATA)),
    (r"a: shape \[4.0\]; expected integers", by_hand({"a": entry(0, 16, [4.0])}, DATA)),
    ("a: shape 4; expected integers", by_hand({"a": entry(0, 16, 4)}, DATA)),
    ("a: shape of 3 axes; expected one", by_hand({"a": entry(0, 0, [0, 2**62, 2**62])}, b"")),
    ("a: shape of 99 axes; expected one", by_hand({"a": entry(0, 4, [1] * 99)}, DATA)),
    (r"a: data_offsets \[-4, 12\]; expected integers", by_hand({"a": entry(-4, 12, [4])}, DATA)),
    (r"a: data_offsets \[16, 0\]; expected 16 bytes", by_hand({"a": entry(16, 0, [4])}, DATA)),
    (r"a: data_offsets \[0, 12\]; expected 16 b", by_hand({"a": entry(0, 12, [4])}, DATA)),
    (r"a: .*\[0, 8, 16\]; expected 16 bytes", by_hand({"a": entry(0, 8, [4]) | {
        "data_offsets": [0, 8, 16]}}, DATA)),
    ("a: cut short, b is missing from byte 12 .* end at 16", by_hand(TWO, DATA[:12])),
    ("a: cut short, a is missing from byte 0 .* end at 8", by_hand(TWO, b"")),
    ("b starts at byte 4 of the data; expected 8", by_hand(TWO | {"b": entry(4, 12, [2])}, DATA)),
    ("b starts at byte 0 of the data; expected 8", by_hand(TWO | {"b": entry(0, 8, [2])}, DATA)),
    ("b starts at byte 12 of the data; expected 8", by_hand(TWO | {"b": entry(12, 16, [1])}, DATA)),
    ("a: cut short, b is missing", by_hand(TWO | {"b": entry(8, 2**50, [2**48 - 2])}, DATA)),
    ("2 bytes after b; expected the end", by_hand(TWO, DATA + b"xx")),
    ("16 bytes after the header; expected the end", by_hand({}, DATA)),
]  # fmt: skip


@pytest.mark.parametrize(("message", "content"), REFUSES, ids=[m for m, _ in REFUSES])
def test_refuses(tmp_path, message, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_not_there_or_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_tensors(tmp_path / "a")
    with pytest.raises(UserError, match=r"directory.*; expected a safetensors file"):
        read_tensors(tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        write_tensors(tmp_path / "missing" / "a", {"a": np.ones(2)})
