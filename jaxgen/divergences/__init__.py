"""Divergences between distributions: f-divergences, Gaussians, samples, mutual information.

kl_divergence(p, q)                                    # [...] of probabilities [..., K], nats
divergence = squared_hellinger()                       # or from_generator(lambda u: ...)
f_divergence(divergence, p, q)                         # of probabilities, for any record
terms = variational_bound(divergence, critic(x), critic(generator(z)))
bound = terms.real.mean() + terms.fake.mean()          # the critic ascends, the generator descends
gaussian_kl_to_standard(mean, log_std)                 # [B], the KL term of a VAE
squared_mmd_unbiased(polynomial_kernel(), x, y)        # KID, on features
info_nce_bound(embed(x) @ embed(y).T)                  # [B], nats
"""

from jaxgen.divergences.discrete import (
    hellinger_distance,
    jeffreys_divergence,
    jensen_shannon_divergence,
    kl_divergence,
    neyman_chi_square,
    pearson_chi_square,
    reverse_kl_divergence,
    squared_hellinger_distance,
    total_variation_distance,
)
from jaxgen.divergences.f_divergence import (
    BoundTerms,
    FDivergence,
    f_divergence,
    variational_bound,
)
from jaxgen.divergences.gaussian import (
    gaussian_bhattacharyya,
    gaussian_jeffreys,
    gaussian_kl,
    gaussian_kl_full,
    gaussian_kl_to_standard,
    gaussian_squared_hellinger,
    gaussian_squared_wasserstein,
    gaussian_squared_wasserstein_full,
)
from jaxgen.divergences.generator import from_generator
from jaxgen.divergences.mutual_information import (
    donsker_varadhan_bound,
    f_information_bound,
    info_nce_bound,
)
from jaxgen.divergences.records import (
    alpha_divergence,
    chi_square_over_p,
    chi_square_over_q,
    gan,
    jeffreys,
    jensen_shannon,
    kl,
    reverse_kl,
    squared_hellinger,
    total_variation,
    weighted_jensen_shannon,
)
from jaxgen.divergences.samples import (
    energy_distance,
    energy_kernel,
    polynomial_kernel,
    rbf_kernel,
    sliced_wasserstein,
    squared_distances,
    squared_mmd,
    squared_mmd_unbiased,
    wasserstein_1d,
)

__all__ = [
    "BoundTerms",
    "FDivergence",
    "alpha_divergence",
    "chi_square_over_p",
    "chi_square_over_q",
    "donsker_varadhan_bound",
    "energy_distance",
    "energy_kernel",
    "f_divergence",
    "f_information_bound",
    "from_generator",
    "gan",
    "gaussian_bhattacharyya",
    "gaussian_jeffreys",
    "gaussian_kl",
    "gaussian_kl_full",
    "gaussian_kl_to_standard",
    "gaussian_squared_hellinger",
    "gaussian_squared_wasserstein",
    "gaussian_squared_wasserstein_full",
    "hellinger_distance",
    "info_nce_bound",
    "jeffreys",
    "jeffreys_divergence",
    "jensen_shannon",
    "jensen_shannon_divergence",
    "kl",
    "kl_divergence",
    "neyman_chi_square",
    "pearson_chi_square",
    "polynomial_kernel",
    "rbf_kernel",
    "reverse_kl",
    "reverse_kl_divergence",
    "sliced_wasserstein",
    "squared_distances",
    "squared_hellinger",
    "squared_hellinger_distance",
    "squared_mmd",
    "squared_mmd_unbiased",
    "total_variation",
    "total_variation_distance",
    "variational_bound",
    "wasserstein_1d",
    "weighted_jensen_shannon",
]
