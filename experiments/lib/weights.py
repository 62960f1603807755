"""BERT and RoBERTa of Hugging Face: folders of config.json and model.safetensors, both ways.

`read` gives the settings of `jaxgen.models.Transformer` and the parameters of
`jaxgen.models.MaskedLM`; `write` takes them. Weights of one kind are stacked over layers, and a
matrix is [in, out] here and [out, in] there.

    found = weights.read(folder)
    model = MaskedLM(Transformer(**found.settings))
    logits = model.apply({"params": found.params}, ids)
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.lib.errors import UserError
from experiments.lib.tensors import read_tensors, write_tensors
from experiments.lib.workdir import read_json, write_json

_KINDS = ("bert", "roberta")
# Our setting -> (its key in config.json, the value of a config without the key).
_KEYS: dict[str, tuple[str, Any]] = {
    "vocab": ("vocab_size", None),
    "depth": ("num_hidden_layers", None),
    "width": ("hidden_size", None),
    "heads": ("num_attention_heads", None),
    "hidden": ("intermediate_size", None),
    "length": ("max_position_embeddings", None),
    "segments": ("type_vocab_size", 2),
    "dropout": ("hidden_dropout_prob", 0.1),
    "epsilon": ("layer_norm_eps", 1e-12),
}
_SIZES = ("vocab", "depth", "width", "heads", "hidden", "length", "segments")
# What else a config may say, of which the network has one form.
_ONLY = {
    "hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False,
    "add_cross_attention": False,
}  # fmt: skip

_PARTS = {  # of both kinds, without the prefix "bert." or "roberta."
    "token": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "layers/query": "encoder.layer.{}.attention.self.query",
    "layers/key": "encoder.layer.{}.attention.self.key",
    "layers/value": "encoder.layer.{}.attention.self.value",
    "layers/out": "encoder.layer.{}.attention.output.dense",
    "layers/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layers/up": "encoder.layer.{}.intermediate.dense",
    "layers/down": "encoder.layer.{}.output.dense",
    "layers/output_norm": "encoder.layer.{}.output.LayerNorm",
}
_HEADS = {
    "bert": {
        "dense": "cls.predictions.transform.dense",
        "norm": "cls.predictions.transform.LayerNorm",
        "": "cls.predictions",
    },
    "roberta": {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "": "lm_head"},
}


class Pretrained(NamedTuple):
    """A network of Hugging Face's form.

    Attributes:
      kind: "bert" or "roberta".
      settings: of `Transformer`.
      params: of `MaskedLM`, f32; without a head in the file, "transformer" alone.
      ignored: names, without the prefix, of tensors that the network has no place for, such as a
        pooler's.
    """

    kind: str
    settings: dict[str, Any]
    params: dict[str, Any]
    ignored: tuple[str, ...] = ()


class _Slot(NamedTuple):
    path: tuple[str, ...]  # of the parameter
    name: str  # of the tensor, "{}" for the layer
    shape: tuple[int, ...]  # of the tensor
    turned: bool = False  # whether one is the transpose of the other


def read(folder: pathlib.Path) -> Pretrained:
    """Reads config.json and model.safetensors of BERT or RoBERTa, with or without the head.

    Old names (gamma, beta), tensors with or without "bert." and a decoder that is stored again
    beside the embeddings are understood; f16 and bf16 become f32.

    Raises:
      UserError: a file is missing or damaged, the config is of another network, or does not fit
        the tensors: the message names the first that is missing or wrong.
    """
    kind, settings = _settings(folder / "config.json")
    path = folder / "model.safetensors"
    if not path.exists() and (folder / "pytorch_model.bin").exists():
        raise UserError(f"{folder}: holds a pickle, which may run code; expected model.safetensors")
    tensors = _renamed(path, kind, read_tensors(path))
    head = any(name.startswith(_HEADS[kind][""] + ".") for name in tensors)
    if head:
        _untie(path, kind, tensors)
    slots = _slots(kind, settings, head)
    params: dict[str, Any] = {}
    for slot in slots:
        *above, last = slot.path
        node = params
        for step in above:
            node = node.setdefault(step, {})
        arrays = [_take(path, tensors, name, slot) for name in _names(slot, settings)]
        node[last] = np.stack(arrays) if "{}" in slot.name else arrays[0]
    taken = {name for slot in slots for name in _names(slot, settings)}
    surplus = [name for name in tensors if name not in taken]
    layer = next((name for name in surplus if name.startswith("encoder.layer.")), None)
    if layer:
        raise UserError(f"{path}: {layer}; expected {settings['depth']} layers as in config.json")
    return Pretrained(kind, settings, params, tuple(surplus))


def _settings(path: pathlib.Path) -> tuple[str, dict[str, Any]]:
    config = read_json(path)
    if config is None:
        raise UserError(f"{path}: no such file; expected the config of a BERT or RoBERTa")
    kind = config.get("model_type", "bert")  # the first BERT's had none
    if kind not in _KINDS:
        raise UserError(f"{path}: model_type {kind}; expected {' or '.join(_KINDS)}")
    for key, expected in _ONLY.items():
        if config.get(key, expected) != expected:
            raise UserError(f"{path}: {key} {config[key]}; expected {expected}")
    settings = {name: config.get(key, default) for name, (key, default) in _KEYS.items()}
    for name, value in settings.items():
        key, size = _KEYS[name][0], name in _SIZES
        if size and (type(value) is not int or not 1 <= value < 2**31):
            raise UserError(f"{path}: {key} {value}; expected an integer >= 1")
        if not size and (type(value) not in (int, float) or not 0 <= value < 1):
            raise UserError(f"{path}: {key} {value}; expected a number in [0, 1)")
    if settings["width"] % settings["heads"]:
        raise UserError(
            f"{path}: hidden_size {settings['width']}; expected a multiple of"
            f" num_attention_heads {settings['heads']}"
        )
    padding = config.get("pad_token_id", 1)
    if kind == "roberta":
        if type(padding) is not int or not 0 <= padding < settings["length"] - 1:
            raise UserError(f"{path}: pad_token_id {padding}; expected one of the positions")
        settings["offset"] = padding + 1
    return kind, settings


def _renamed(path, kind: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors under today's names, without the prefix."""
    found: dict[str, np.ndarray] = {}
    for old, tensor in tensors.items():
        name = old.removeprefix(f"{kind}.")
        for before, now in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(before):
                name = name.removesuffix(before) + now
        if name in found:
            raise UserError(f"{path}: {old} and another name for {name}; expected one of them")
        found[name] = tensor
    return found


def _untie(path, kind: str, tensors: dict[str, np.ndarray]) -> None:
    """Takes out the head's decoder, which has to be the table of tokens and the head's bias."""
    head = _HEADS[kind][""]
    bias = f"{head}.bias"
    if bias not in tensors and f"{head}.decoder.bias" in tensors:
        tensors[bias] = tensors[f"{head}.decoder.bias"]
    ties = {f"{head}.decoder.weight": "embeddings.word_embeddings.weight",
            f"{head}.decoder.bias": bias}  # fmt: skip
    for name, original in ties.items():
        again = tensors.pop(name, None)
        if again is not None and not np.array_equal(again, tensors.get(original, 0)):
            raise UserError(f"{path}: {name} differs from {original}; expected tied weights")


def _slots(kind: str, settings: Mapping[str, Any], head: bool) -> list[_Slot]:
    """Every parameter and the tensor that it comes from."""
    width, hidden = settings["width"], settings["hidden"]
    rows = {"token": settings["vocab"], "position": settings["length"],
            "segment": settings["segments"]}  # fmt: skip
    shapes = {"layers/up": (hidden, width), "layers/down": (width, hidden)}
    parts = [(f"transformer/{ours}", ours, theirs) for ours, theirs in _PARTS.items()]
    if head:
        parts += [(ours, ours, theirs) for ours, theirs in _HEADS[kind].items()]
    slots = []
    for place, part, name in parts:
        path = tuple(place.split("/")) if place else ()
        if part in rows:
            slots.append(_Slot((*path, "embedding"), f"{name}.weight", (rows[part], width)))
        elif part.endswith("norm"):
            slots.append(_Slot((*path, "scale"), f"{name}.weight", (width,)))
            slots.append(_Slot((*path, "bias"), f"{name}.bias", (width,)))
        elif part:
            shape = shapes.get(part, (width, width))
            slots.append(_Slot((*path, "kernel"), f"{name}.weight", shape, turned=True))
            slots.append(_Slot((*path, "bias"), f"{name}.bias", shape[:1]))
        else:
            slots.append(_Slot(("bias",), f"{name}.bias", (settings["vocab"],)))
    return slots


def _names(slot: _Slot, settings: Mapping[str, Any]) -> Iterator[str]:
    count = settings["depth"] if "{}" in slot.name else 1
    return (slot.name.format(layer) for layer in range(count))


def _take(path, tensors: Mapping[str, np.ndarray], name: str, slot: _Slot) -> np.ndarray:
    if name not in tensors:
        raise UserError(f"{path}: lacks {name} {slot.shape}; expected all tensors of config.json")
    tensor = tensors[name]
    if tensor.shape != slot.shape:
        raise UserError(f"{path}: {name} {tensor.shape}; expected {slot.shape} by config.json")
    if tensor.dtype.kind in "biu":
        raise UserError(f"{path}: {name} {tensor.dtype}; expected floats")
    return np.asarray(tensor.T if slot.turned else tensor, np.float32)


def write(folder: pathlib.Path, model: Pretrained) -> None:
    """Writes config.json and model.safetensors, as `transformers` and `read` read them.

    Args:
      folder: made if it is missing.
      model: params of `MaskedLM`, or {"transformer": ...} for a network without head. The settings
        are those of `Transformer`; what Hugging Face has no name for (dtype, remat) may be there.

    Raises:
      UserError: the network has no such form (pre_norm, rotary, no segments), an array is missing
        or of another shape, or a file cannot be written.
    """
    kind, settings, head = model.kind, model.settings, model.params.keys() != {"transformer"}
    if kind not in _KINDS:
        raise UserError(f"{folder}: kind {kind}; expected {' or '.join(_KINDS)}")
    for name in ("pre_norm", "rotary"):
        if settings.get(name):
            raise UserError(f"{folder}: {name} True; expected False in a {kind} of Hugging Face")
    for name in _SIZES:
        if not settings.get(name):
            raise UserError(f"{folder}: {name} {settings.get(name)}; expected an integer >= 1")
    offset = settings.get("offset", 0)
    if (offset > 0) != (kind == "roberta"):
        expected = "padding id + 1" if kind == "roberta" else 0
        raise UserError(f"{folder}: offset {offset}; expected {expected} in a {kind}")
    strange = model.params.keys() - {"transformer", "dense", "norm", "bias"}
    if strange:
        raise UserError(f"{folder}: params {min(strange)}; expected those of `MaskedLM`")
    tensors = {}
    for slot in _slots(kind, settings, head):
        array = _found(folder, model.params, slot, settings)
        layers = array if "{}" in slot.name else [array]
        for name, layer in zip(_names(slot, settings), layers, strict=True):
            inner = name.startswith(("embeddings.", "encoder."))
            full = f"{kind}.{name}" if inner and head else name
            tensors[full] = layer.T if slot.turned else layer
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; expected a folder") from None
    write_tensors(folder / "model.safetensors", tensors)
    write_json(folder / "config.json", _config(kind, settings, head))


def _found(folder, params: Mapping[str, Any], slot: _Slot, settings) -> np.ndarray:
    array: Any = params
    for step in slot.path:
        array = array.get(step) if isinstance(array, Mapping) else None
    shape = slot.shape[::-1] if slot.turned else slot.shape
    if "{}" in slot.name:
        shape = (settings["depth"], *shape)
    if array is None or np.shape(array) != shape:
        found = "missing" if array is None else np.shape(array)
        raise UserError(f"{folder}: params {'/'.join(slot.path)} {found}; expected {shape}")
    return np.asarray(jax.device_get(array), np.float32)


def _config(kind: str, settings: Mapping[str, Any], head: bool) -> dict[str, Any]:
    stem = {"bert": "Bert", "roberta": "Roberta"}[kind]
    return {
        "architectures": [f"{stem}ForMaskedLM" if head else f"{stem}Model"],
        "model_type": kind,
        **{key: settings.get(name, default) for name, (key, default) in _KEYS.items()},
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "pad_token_id": settings.get("offset", 1) - 1,
        **_ONLY,
        "tie_word_embeddings": True,
    }
