"""Soft sort, soft rank and soft top-k in PyTorch, as benchmarks.smooth compares them with ours.

The projections are those of torchsort and fast-soft-sort: sort, pool adjacent violators from left
to right in one loop per row, and a backward pass that averages over the pools. Where torchsort is
installed its compiled loop is used; here it is NumPy, which takes a multiple of that time.
"""

import numpy as np
import torch

try:
    import torchsort
except ImportError:
    torchsort = None


def soft_rank(x, temperature):
    """Ranks of x [B, n] at our temperature, which is relative to the standard deviation."""
    n = x.shape[-1]
    z = n * x / (x.std(-1, correction=0, keepdim=True) * temperature)
    if torchsort is not None:
        return torchsort.soft_rank(z, regularization_strength=1.0)
    z_sorted, order = torch.sort(z)
    w = torch.arange(1, n + 1, dtype=x.dtype).expand_as(x)
    return torch.empty_like(x).scatter(-1, order, _Projection.apply(z_sorted, w))


def soft_sort(x, temperature):
    """x [B, n] sorted upwards at our temperature."""
    n = x.shape[-1]
    scale = x.std(-1, correction=0, keepdim=True)
    if torchsort is not None:
        # In units of the standard deviation, for one strength of all rows.
        return scale * torchsort.soft_sort(x / scale, regularization_strength=n * temperature)
    z = torch.arange(1, n + 1, dtype=x.dtype) * scale / (n * temperature)
    return _Projection.apply(z, torch.sort(x)[0])


def sigmoid_top_k(x, k, temperature):
    """Weights of x [B, n] with sum k, the threshold by bisection."""
    return _TopK.apply(x / temperature, k)


class _Projection(torch.autograd.Function):
    """z - isotonic(z - w) for z and w [B, n] sorted upwards."""

    @staticmethod
    def forward(ctx, z, w):
        fit, ctx.pools = pool_adjacent_violators((z - w).detach().numpy())
        return z - torch.from_numpy(fit)

    @staticmethod
    def backward(ctx, g):
        means = torch.from_numpy(_pool_means(g.numpy(), ctx.pools))
        return g - means, means


def pool_adjacent_violators(y):
    """(isotonic regression of the rows of y, number of the pool that each element is in)."""
    pools = np.empty(y.shape, np.int64)
    for row, values in enumerate(y.astype(np.float64).tolist()):
        means, sizes = [], []
        for value in values:
            mean, size = value, 1
            while means and means[-1] >= mean:
                last, count = means.pop(), sizes.pop()
                mean = (mean * size + last * count) / (size + count)
                size += count
            means.append(mean)
            sizes.append(size)
        pools[row] = np.repeat(np.arange(len(sizes)), sizes)
    return _pool_means(y, pools), pools


def _pool_means(y, pools):
    means = np.empty_like(y)
    for row, (values, pool) in enumerate(zip(y, pools, strict=True)):
        means[row] = (np.bincount(pool, values) / np.bincount(pool))[pool]
    return means


class _TopK(torch.autograd.Function):
    """sigmoid(z - threshold), with the implicit gradient."""

    @staticmethod
    def forward(ctx, z, k):
        n = z.shape[-1]
        quantile = torch.logit(torch.tensor(k / n, dtype=z.dtype))
        low, high = z.amin(-1, keepdim=True) - quantile, z.amax(-1, keepdim=True) - quantile
        for _ in range(40):
            middle = 0.5 * (low + high)
            many = torch.sigmoid(z - middle).sum(-1, keepdim=True) > k
            low, high = torch.where(many, middle, low), torch.where(many, high, middle)
        p = torch.sigmoid(z - 0.5 * (low + high))
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx, g):
        (p,) = ctx.saved_tensors
        slope = p * (1 - p)
        return slope * (g - (slope * g).sum(-1, keepdim=True) / slope.sum(-1, keepdim=True)), None
