"""The contract between an experiment and the plumbing: a data set and a method."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Method(NamedTuple):
    """Pure functions that train and use a model; only `init` and `step` are needed.

    A batch is a dict of arrays with a common leading axis B. A key is a PRNG key, used once.

    Attributes:
      init: (key, batch) -> state, a pytree of arrays.
      step: (state, batch, key) -> (state, {name: scalar}).
      evaluate: (state, batch, key) -> {name: [B], or (sum, count)}. Values are averaged over the
        test split. The last batch is padded with copies of the last example, and batch["valid"]
        (bool [B]) is False there: the loop masks values [B], a method masks its own sums.
      judge: (state, key) -> {name: number}, for what is not a mean over test examples, such as a
        Frechet distance. Plain Python around jitted functions; it runs on one device.
      pictures: (state, batch, key) -> {name: image [H, W, C] in [0, 1]}; gets 64 test examples.
      report: {name: mean over the test split} -> {name: number}, for what is computed from means,
        such as F1 from the shares of hits and misses.
      sample: (state, key, count) -> [count, ...], in the data's own form (images: uint8).
      log_prob: (state, x, key) -> [B] in nats, for x in the data's own form.
      init_batch: number of examples in the batch that `init` gets; 0: as many as a step.
      batches_per_step: number of batches of --batch-size examples that one step takes.
      meanings: {name of a final number: what it means, in one line}, printed beside it. The name is
        what comes after the last "/", and needs no "_std".
      pick: the final number by which one of several --seeds is picked, the one with the lowest; it
        must not look at what the seeds are judged by. The numbers of that seed are NAME_picked.
    """

    init: Any
    step: Any
    evaluate: Any = None
    judge: Any = None
    pictures: Any = None
    report: Any = None
    sample: Any = None
    log_prob: Any = None
    init_batch: int = 0
    batches_per_step: int = 1
    meanings: Mapping[str, str] = MappingProxyType({})
    pick: str = ""
