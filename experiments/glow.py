"""Glow: multiscale flow with invertible 1x1 convolutions, on images.

Kingma & Dhariwal 2018 (arXiv 1807.03039); Su Jianlin's post 5807 (kexue.fm).

    python -m experiments.glow                                   2.002 bits/dim, 0.9 min
    python -m experiments.glow --data mnist --data-dir DIR       1.374 bits/dim, 2 min

Held-out bits/dim, lower is better; an independent histogram for each pixel reaches 2.39 and 1.69.
The images pass a logit, and the conditioners' kernels decay because 1,437 digits are few.
More results: RESULTS.md.
"""

from dataclasses import dataclass

from experiments.lib.launch import launch
from experiments.methods.flow import GlowConfig, flow_likelihood
from experiments.methods.likelihood import adam
from jaxgen import flows


@dataclass(frozen=True)
class Config(GlowConfig):
    """Glow's knobs."""

    steps: int = 800
    """Training steps."""


SMOKE = Config(steps=4, batch_size=16, init_batch=32, depth=1, width=8, eval_every=2, log_every=1)


def build(config: Config):
    """Images, and Glow fitted to them."""
    data = config.images()
    flow = flows.chain(flows.logit(config.margin), config.glow())
    return data, flow_likelihood(flow, adam(config, len(data.train)), data, config)


if __name__ == "__main__":
    launch(build, Config)
