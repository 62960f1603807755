"""The step of `benchmarks.transformer` in PyTorch, with `BertForMaskedLM` of transformers."""

from collections.abc import Iterator

import numpy as np
import torch
import transformers
from torch.nn import functional

from benchmarks import peers

_LAYER = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense", "down": "output.dense", "output_norm": "output.LayerNorm",
}  # fmt: skip
_TABLES = {"token": "word", "position": "position", "segment": "token_type"}
_HEAD = "cls.predictions"


def tensors(params) -> dict[str, torch.Tensor]:
    """Our parameters of a `MaskedLM`, numpy arrays, under the names of `BertForMaskedLM`."""
    inner = params["transformer"]
    found = dict(_part(f"{_HEAD}.transform.dense", params["dense"]))
    found |= dict(_part(f"{_HEAD}.transform.LayerNorm", params["norm"]))
    found |= dict(_part("bert.embeddings.LayerNorm", inner["norm"]))
    table = inner["token"]["embedding"]
    found |= {f"{_HEAD}.bias": params["bias"], f"{_HEAD}.decoder.bias": params["bias"]}
    found |= {f"{_HEAD}.decoder.weight": table}
    for ours, theirs in _TABLES.items():
        found[f"bert.embeddings.{theirs}_embeddings.weight"] = inner[ours]["embedding"]
    for ours, theirs in _LAYER.items():
        for i in range(len(inner["layers"]["up"]["bias"])):
            layer = {name: array[i] for name, array in inner["layers"][ours].items()}
            found |= dict(_part(f"bert.encoder.layer.{i}.{theirs}", layer))
    return {name: torch.from_numpy(np.array(array)) for name, array in found.items()}


def _part(name: str, params) -> Iterator[tuple]:
    for ours, array in params.items():
        yield (
            f"{name}.{'bias' if ours == 'bias' else 'weight'}",
            (array.T if ours == "kernel" else array),
        )


def network(settings, params) -> transformers.BertForMaskedLM:
    """The twin of our network, with dropout 0 and fused (sdpa) attention.

    Args:
      settings: vocab, depth, width, heads, hidden, length of our `Transformer`.
      params: of our `MaskedLM`, numpy arrays.
    """
    config = transformers.BertConfig(
        vocab_size=settings["vocab"],
        num_hidden_layers=settings["depth"],
        hidden_size=settings["width"],
        num_attention_heads=settings["heads"],
        intermediate_size=settings["hidden"],
        max_position_embeddings=settings["length"],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    model = transformers.BertForMaskedLM(config)
    model.load_state_dict(tensors(params))
    return model.train()


class Loss(torch.nn.Module):
    """Mean cross-entropy at the predicted positions.

    Args:
      model: of `network`.
      gathered: the head on the predicted positions alone, as ours; otherwise on all, with labels
        of -100 elsewhere, as the users of transformers do.
    """

    def __init__(self, model, gathered: bool):
        super().__init__()
        self.model, self.gathered = model, gathered

    def forward(self, ids, at, targets, labels, documents=None, positions=None):
        """Scalar; `documents` [B, L] of a packed row confine attention."""
        inputs = {"input_ids": ids, "position_ids": positions}
        if documents is not None:  # four axes: transformers takes it as it is
            same = documents[:, :, None] == documents[:, None, :]
            inputs["attention_mask"] = same[:, None]
        if not self.gathered:
            return self.model(**inputs, labels=labels).loss
        hidden = self.model.bert(**inputs).last_hidden_state
        places = at[:, :, None].expand(-1, -1, hidden.shape[-1])
        logits = self.model.cls(hidden.gather(1, places))
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def prepared(batch, device) -> dict[str, torch.Tensor]:
    """A batch of `benchmarks.transformer.batch` and labels; its weights are all 1."""
    names = batch.keys() - {"weights"}
    batch = {name: torch.from_numpy(np.int64(batch[name])).to(device) for name in names}
    empty = torch.full_like(batch["ids"], -100)
    return {**batch, "labels": empty.scatter(1, batch["at"], batch["targets"])}


def optimizer(model, rate: float, decay: float, eps: float = 1e-8) -> torch.optim.AdamW:
    """AdamW without decay of norms and biases."""
    named = list(model.named_parameters())
    plain = [p for name, p in named if "LayerNorm" in name or name.endswith("bias")]
    decayed = [p for name, p in named if not any(p is q for q in plain)]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, eps=eps, weight_decay=decay, fused=True)


def step(settings, params, batch, *, gathered, compiled, half, rate, decay):
    """A function that trains for one step, on the same batch.

    Args:
      settings: as in `network`.
      params: ours, numpy arrays.
      batch: of `benchmarks.transformer.batch`, numpy arrays.
      gathered: as in `Loss`.
      compiled: use torch.compile on the loss with its network.
      half: products in bf16 (autocast), parameters in f32.
      rate: of AdamW.
      decay: of AdamW.
    """
    device = peers.place(False)["device"]
    loss = Loss(network(settings, params).to(device), gathered)
    adam = optimizer(loss.model, rate, decay)
    inputs = prepared(batch, device)
    if compiled:
        loss.compile()

    def train():
        adam.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            value = loss(**inputs)
        value.backward()
        adam.step()
        return value.item()  # waits for the device

    return train


def product(size: int, half: bool):
    """A function that takes the products of `benchmarks.lib.matmul`: ten on a GPU."""
    device = peers.place(False)["device"]
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if half else torch.float32)

    def run():
        for _ in range(1 if device.type == "cpu" else 10):
            torch.matmul(a, a)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run
