"""Evaluation metrics: of generated features, pixels or points (real comes first), and of clusters.

shift = real[:256].mean(axis=0)                           # features of any extractor, [N, D]
sums = feature_sums(real, shift)                          # sum over all batches
distance = frechet_distance(gaussian_fit(sums, shift), fit_of_fakes)
mean, standard_error = kernel_distance(key, real, fake, subsets=10, size=1000)
precision, recall = precision_recall(real, fake)
density, coverage = density_coverage(real, fake)
counts, high_quality = mode_counts(centers, samples, sigma=0.01)
modes, kl = captured_modes(counts), kl_to_uniform(counts)
by_level = 1e3 * pyramid_sliced_wasserstein(key, real_images, fake_images)
diversity = ms_ssim(fakes, other_fakes, low=-1, high=1)   # of random pairs
table = contingency(clusters, labels, 10, 10)             # of batches: add them up
acc, nmi = hungarian_accuracy(table), normalized_mutual_information(table)
predicted = knn_votes(features, labels, queries, k=20, num_classes=10).argmax(axis=1)

Most are biased at finite N. Report N, the features, and the same metric for real against other real
examples. FID and KID require the features of the original 2015 Inception network.
"""

from jaxgen.metrics.clustering import (
    adjusted_rand_index,
    agreement,
    contingency,
    hungarian_accuracy,
    normalized_mutual_information,
    purity,
    used_clusters,
)
from jaxgen.metrics.frechet import (
    FeatureSums,
    GaussianFit,
    feature_sums,
    frechet_distance,
    gaussian_fit,
)
from jaxgen.metrics.kernel import KernelDistance, kernel_distance
from jaxgen.metrics.knn import knn_votes
from jaxgen.metrics.modes import ModeCounts, captured_modes, kl_to_uniform, mode_counts
from jaxgen.metrics.neighbours import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    neighbour_radii,
    precision_recall,
)
from jaxgen.metrics.pyramid import laplacian_pyramid, pyramid_sliced_wasserstein
from jaxgen.metrics.similarity import ms_ssim, ssim

__all__ = [
    "DensityCoverage",
    "FeatureSums",
    "GaussianFit",
    "KernelDistance",
    "ModeCounts",
    "PrecisionRecall",
    "adjusted_rand_index",
    "agreement",
    "captured_modes",
    "contingency",
    "density_coverage",
    "feature_sums",
    "frechet_distance",
    "gaussian_fit",
    "hungarian_accuracy",
    "kernel_distance",
    "kl_to_uniform",
    "knn_votes",
    "laplacian_pyramid",
    "mode_counts",
    "ms_ssim",
    "neighbour_radii",
    "normalized_mutual_information",
    "precision_recall",
    "purity",
    "pyramid_sliced_wasserstein",
    "ssim",
    "used_clusters",
]
