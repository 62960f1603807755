"""Files of named arrays in the format safetensors: a JSON header, then the arrays' bytes.

github.com/huggingface/safetensors: 8 bytes of header length, little-endian; the header {name:
{"dtype", "shape", "data_offsets"}}, padded with spaces; the arrays, row-major, one after another.
Nothing in such a file can run code. The package `safetensors` reads it as well, but does not say
which tensor is missing from a file that was cut short.
"""

import json
import math
import pathlib
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from experiments.lib.errors import UserError
from experiments.lib.workdir import write_atomic

_DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": jnp.bfloat16, "BOOL": "?",
        "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
        "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    }.items()
}  # fmt: skip
_CODES = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 100_000_000  # as in the reference implementation


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Name -> array; read-only views of the file, whose pages are read when they are used.

    Raises:
      UserError: the file cannot be read, is cut short or has trailing bytes, or its header does not
        lay the arrays one after another. The message names the first tensor that is at fault.
    """
    try:
        size = path.stat().st_size
        if size < 8:
            raise UserError(f"{path}: {size} bytes; expected a safetensors file")
        content = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a safetensors file") from None
    length = int.from_bytes(content[:8].tobytes(), "little")
    if length > min(size - 8, _LONGEST_HEADER):
        raise UserError(
            f"{path}: a header of {length} bytes in a file of {size}; expected a safetensors file"
        )
    entries = _entries(path, content[8 : 8 + length].tobytes())
    data, found, end = content[8 + length :], {}, 0
    for name, (dtype, shape, begin, stop) in sorted(entries.items(), key=lambda e: e[1][2:]):
        if begin != end:
            raise UserError(f"{path}: {name} starts at byte {begin} of the data; expected {end}")
        end = stop
        if end > len(data):
            raise UserError(
                f"{path}: cut short, {name} is missing from byte {len(data)} of the data;"
                f" expected it to end at {end}"
            )
        found[name] = data[begin:end].view(dtype).reshape(shape)
    if end != len(data):
        last = next(reversed(found), "the header")
        raise UserError(f"{path}: {len(data) - end} bytes after {last}; expected the end")
    return found


def _entries(path: pathlib.Path, header: bytes) -> dict[str, tuple]:
    """Name -> (dtype, shape, begin, end), each right by itself."""
    try:
        content = json.loads(header.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: header: {error}; expected JSON of a safetensors file") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: header is no object; expected JSON of a safetensors file")
    content.pop("__metadata__", None)
    return {name: _entry(f"{path}: {name}", entry) for name, entry in content.items()}


def _unique(pairs: list[tuple]) -> dict:
    found: dict = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} stands there twice")
        found[name] = value
    return found


def _entry(where: str, entry) -> tuple:
    keys = ("dtype", "shape", "data_offsets")
    if not isinstance(entry, dict) or not all(key in entry for key in keys):
        raise UserError(f"{where}: {entry}; expected {', '.join(keys)}")
    dtype, shape, offsets = (entry[key] for key in keys)
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise UserError(f"{where}: dtype {dtype}; expected one of {', '.join(_DTYPES)}")
    for key, numbers in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(numbers, list) or any(type(n) is not int or n < 0 for n in numbers):
            raise UserError(f"{where}: {key} {numbers}; expected integers >= 0")
    if len(shape) > 32 or math.prod(n or 1 for n in shape) >= 2**60:
        raise UserError(f"{where}: shape of {len(shape)} axes; expected one that fits in memory")
    size = math.prod(shape) * _DTYPES[dtype].itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise UserError(f"{where}: data_offsets {offsets}; expected {size} bytes for {shape}")
    return _DTYPES[dtype], tuple(shape), *offsets


def write_tensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a file that `read_tensors` and the package `safetensors` read; it appears whole.

    Raises:
      UserError: the file cannot be written.
    """
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    end = 0
    for name, array in tensors.items():
        shape, begin, end = list(array.shape), end, end + array.nbytes
        code = _CODES[array.dtype.newbyteorder("<")]
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    arrays = [np.ascontiguousarray(a, a.dtype.newbyteorder("<")) for a in tensors.values()]
    parts = [len(head).to_bytes(8, "little"), head, *(array.tobytes() for array in arrays)]
    write_atomic(path, b"".join(parts))
