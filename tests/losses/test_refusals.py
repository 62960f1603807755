"""What the room refuses, in one line that names the argument, its value and what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import losses

TWO, THREE, PAIR, ONE = jnp.ones(2), jnp.ones(3), jnp.ones((2, 1)), jnp.ones((1, 2))
KEY = jax.random.key(0)


def bigan(critic, x=None, decoded=4):
    return losses.bigan_qp_loss(
        critic,
        lambda x: x[..., :2],
        lambda z: jnp.ones((*z.shape[:-1], decoded)),
        jnp.ones((2, 4)) if x is None else x,
        jnp.ones((2, 2)) if x is None else x[..., :2],
    )


IMAGES, LATENTS, CENTERS, THIRDS = (jnp.ones(s) for s in ((2, 4, 3), (2, 4), (3, 4), (2, 3)))
GREY = np.full((2, 3), 0.5)


def elbo(mean=LATENTS, log_std=0.0, log_likelihood=TWO, log_prior=TWO):
    return losses.elbo(
        lambda x: (mean, log_std), lambda x, z: log_likelihood, lambda z: log_prior, KEY, LATENTS
    )


IDS, ORDINARY = np.full((2, 4), 7), np.arange(5, 9)


def masked_words(ids=IDS, begins=IDS, maskable=IDS, ordinary=ORDINARY, mask_id=4, **settings):
    return losses.masked_words(KEY, ids, begins, maskable, ordinary, mask_id, **settings)


REFUSES = [
    (
        r"^real_label - fake_label 0.0; expected .* > 0",
        lambda: losses.least_squares_critic_loss(TWO, TWO, 0.0, 0.0),
    ),
    (
        r"^real_label \(2, 1\); expected a scalar",
        lambda: losses.least_squares_critic_loss(TWO, TWO, PAIR, 0.0),
    ),
    (r"^target \(2, 1\);", lambda: losses.least_squares_generator_loss(TWO, PAIR)),
    (
        r"^v_real \(2,\), v_fake \(3,\); expected equal shapes",
        lambda: losses.relativistic_critic_loss(TWO, THREE),
    ),
    (
        r"^v_real \(2,\), v_fake \(2, 1\); expected",
        lambda: losses.relativistic_generator_loss(TWO, PAIR),
    ),
    (r"^v_real \(2,\), v_fake \(\); expected", lambda: losses.qp_generator_loss(TWO, 1.0)),
    (r"^v_real .*; expected", lambda: losses.qp_critic_loss(TWO, THREE, TWO)),
    (
        r"^distance \(2, 1\); expected the scores' shape",
        lambda: losses.qp_critic_loss(TWO, TWO, PAIR),
    ),
    (r"^slope 0; expected a finite number > 0", lambda: losses.qp_critic_loss(TWO, TWO, TWO, 0)),
    (r"^slope \(2, 1\); expected a scalar", lambda: losses.qp_critic_loss(TWO, TWO, TWO, PAIR)),
    (
        r"^distance .*-1.*; expected a finite number >= 0",
        lambda: losses.qp_critic_loss(TWO, TWO, np.array([1.0, -1.0])),
    ),
    (r"^x \(2,\), y \(2, 1\); expected", lambda: losses.mean_absolute_distance(TWO, PAIR)),
    (r"^x \(\), y \(\); expected", lambda: losses.root_mean_square_distance(1.0, 1.0)),
    (r"^x \(2, 5\), y \(2, 4\); expected", lambda: bigan(lambda x, z: jnp.ones(2), decoded=5)),
    (
        r"^critic \(2, 1\); expected \[B\] for x \(2, 4\)",
        lambda: bigan(lambda x, z: z[:, :1]),
    ),
    (r"^critic \(\); expected \[B\] for x \(4,\)", lambda: bigan(lambda x, z: z[0], jnp.ones(4))),
    (r"^size 2; expected a divisor of B for x \(5, 2\)", lambda: losses.pack(jnp.ones((5, 2)), 2)),
    (r"^size 0; expected", lambda: losses.pack(jnp.ones((4, 2)), 0)),
    (r"^size 1\.5; expected an integer", lambda: losses.pack(jnp.ones((3, 2)), 1.5)),
    (r"^size 2; .*x \(4,\)", lambda: losses.pack(jnp.ones(4), 2)),
    (
        r"^x \(2, 4, 3\), mean \(2, 4\); expected equal shapes \[B, \.\.\.\]",
        lambda: losses.gaussian_log_likelihood(IMAGES, LATENTS, 0.0),
    ),
    (
        r"^x \(\), mean \(\); expected equal shapes",
        lambda: losses.gaussian_log_likelihood(1.0, 1.0, 0.0),
    ),
    (
        r"^log_std \(4,\); expected what broadcasts to \(2, 4, 3\)",
        lambda: losses.gaussian_log_likelihood(IMAGES, IMAGES, jnp.ones(4)),
    ),
    (
        r"^log_std \(1, 2, 3\); expected what broadcasts to \(2, 3\)",
        lambda: losses.gaussian_log_likelihood(THIRDS, THIRDS, jnp.ones((1, 2, 3))),
    ),
    (r"^x \(2, 4\), mean \(2, 3\); expected", lambda: losses.optimal_log_std(LATENTS, THIRDS)),
    (r"^floor \(2,\); expected a scalar", lambda: losses.optimal_log_std(TWO, TWO, TWO)),
    (r"^floor -inf; expected a finite number", lambda: losses.soft_floor(TWO, -jnp.inf)),
    (
        r"^x \(2, 3\), logits \(2, 4\); expected equal",
        lambda: losses.bernoulli_log_likelihood(GREY, LATENTS),
    ),
    (
        r"^x of 127\.5 to 127\.5; expected numbers in \[0, 1\]",
        lambda: losses.bernoulli_log_likelihood(255 * GREY, THIRDS),
    ),
    (
        r"^x of 0\.5 to 0\.5; expected 0, 1, \.\. 255",
        lambda: losses.discretized_logistic_log_likelihood(GREY, THIRDS, 0.0),
    ),
    (
        r"^x of 8 to 8; expected 0, 1, \.\. 7",
        lambda: losses.discretized_logistic_log_likelihood(16 * GREY, THIRDS, 0.0, 8),
    ),
    (
        r"^levels 1; expected an integer >= 2",
        lambda: losses.discretized_logistic_log_likelihood(THIRDS, THIRDS, 0.0, 1),
    ),
    (
        r"^log_scale \(2,\); expected what broadcasts to \(2, 3\)",
        lambda: losses.discretized_logistic_log_likelihood(THIRDS, THIRDS, TWO),
    ),
    (r"^log_std \(3,\); expected", lambda: losses.reparameterize(KEY, LATENTS, THREE)),
    (r"^z \(\); expected \[\.\.\., D\]", lambda: losses.gaussian_log_prob(1.0, 0, 0)),
    (r"^mean \(2, 3\); expected", lambda: losses.gaussian_log_prob(LATENTS, THIRDS, 0)),
    (r"^log_std \(2, 4\); expected", lambda: losses.gaussian_log_prob(jnp.ones(4), 0, LATENTS)),
    (r"^mean \(\); expected \[B, \.\.\.\]", lambda: elbo(mean=1.0)),
    (r"^log_std \(2,\); expected what broadcasts to \(2, 4\)", lambda: elbo(log_std=TWO)),
    (
        r"^log_likelihood \(2, 4\); expected \[B\] for mean \(2, 4\)",
        lambda: elbo(log_likelihood=LATENTS),
    ),
    (r"^log_prior \(\); expected \[B\]", lambda: elbo(log_prior=jnp.ones(()))),
    (r"^kl \(2,\); expected \[B, G\]", lambda: losses.free_bits(TWO, 0.1)),
    (r"^floor -1; expected a finite number >= 0", lambda: losses.free_bits(LATENTS, -1)),
    (r"^floor \(2,\); expected a scalar", lambda: losses.free_bits(LATENTS, TWO)),
    (
        r"^log_weights \(2,\); expected \[K, B\] with K >= 1",
        lambda: losses.importance_weighted_bound(TWO),
    ),
    (
        r"^log_weights \(0, 2\); expected",
        lambda: losses.importance_weighted_bound(jnp.ones((0, 2))),
    ),
    (
        r"^posterior \(2, 4\); expected \(2, 3\)",
        lambda: losses.cluster_kl(LATENTS, LATENTS, 0.0, CENTERS, 0.0),
    ),
    (
        r"^mean \(2, 3\), cluster_mean \(3, 4\); expected \[B, D\], \[K, D\]",
        lambda: losses.cluster_kl(THIRDS, THIRDS, 0.0, CENTERS, 0.0),
    ),
    (
        r"^log_std \(2,\); expected what broadcasts to \(2, 4\)",
        lambda: losses.cluster_kl(THIRDS, LATENTS, TWO, CENTERS, 0.0),
    ),
    (
        r"^cluster_log_std \(3,\); expected what broadcasts to \(3, 4\)",
        lambda: losses.sampled_cluster_kl(THIRDS, LATENTS, 0.0, 0.0, CENTERS, THREE),
    ),
    (
        r"^posterior \(3,\); expected \(2, 3\)",
        lambda: losses.sampled_cluster_kl(THREE, LATENTS, 0.0, 0.0, CENTERS, 0.0),
    ),
    (
        r"^z \(4,\), cluster_mean \(3, 4\); expected",
        lambda: losses.cluster_log_posterior(jnp.ones(4), CENTERS, 0.0, THREE),
    ),
    (
        r"^logits \(2, 3\); expected \(3,\)",
        lambda: losses.cluster_log_posterior(LATENTS, CENTERS, 0.0, THIRDS),
    ),
    (
        r"^p \(2, 3\), q \(2, 4\); expected equal shapes \[\.\.\., B, K\]",
        lambda: losses.assignment_information(THIRDS, LATENTS),
    ),
    (r"^p \(2,\), q \(2,\); expected", lambda: losses.assignment_information(TWO, TWO)),
    (
        r"^codes \(2, 3\), others \(2, 4, 2\); expected \[B, D\] and",
        lambda: losses.pair_scores(jnp.ones((2, 3)), jnp.ones((2, 4, 2))),
    ),
    (r"^codes \(2,\), others \(2,\); expected", lambda: losses.pair_scores(TWO, TWO)),
    (r"^temperature 0; expected .* > 0", lambda: losses.pair_scores(PAIR, PAIR, 0)),
    (r"^temperature \(2,\); expected a sc", lambda: losses.nt_xent_loss(PAIR, PAIR, TWO)),
    (r"^x \(1, 2\), y \(1, 2\); .* B >= 2", lambda: losses.nt_xent_loss(ONE, ONE)),
    (r"^x \(2, 1\), y \(1, 2\); expected equal", lambda: losses.nt_xent_loss(PAIR, ONE)),
    (r"^scores \(3, 1, 1\); expected", lambda: losses.local_info_nce_loss(jnp.ones((3, 1, 1)))),
    (r"^scores \(2, 1\); expected", lambda: losses.local_info_nce_loss(PAIR)),
    (r"^x \(1, 2\); expected \[B, ...\] with B >= 2", lambda: losses.derange(KEY, ONE)),
    (r"^x \(\); expected", lambda: losses.derange(KEY, 1.0)),
    (
        r"^word, .* \(2,\), \(2,\), \(3,\), \(2,\);",
        lambda: losses.joint_hinge_loss(TWO, TWO, THREE, TWO),
    ),
    (r"^ids int\d+\[4\]; expected integers \[B, L\]", lambda: masked_words(IDS[0])),
    (r"^ids float32\[2, 4\]; expected", lambda: losses.next_tokens(LATENTS, IDS)),
    (r"^ids int\d+\[2, 0\]; .*L >= 1", lambda: losses.next_tokens(IDS[:, :0], IDS[:, :0])),
    (r"^begins \(1, 4\); expected \(2, 4\) as ids", lambda: masked_words(begins=IDS[:1])),
    (r"^maskable \(4,\); expected \(2, 4\) as ids", lambda: masked_words(maskable=IDS[0])),
    (r"^documents \(2, 1\); expected", lambda: losses.next_tokens(IDS, IDS[:, :1])),
    (r"^documents \(2, 1\);", lambda: losses.prefix_targets(KEY, IDS, IDS[:, :1], 3)),
    (r"^separator \(2,\); expected a sc", lambda: losses.prefix_targets(KEY, IDS, IDS, TWO)),
    (r"^ordinary int\d+\[0\]; expected", lambda: masked_words(ordinary=ORDINARY[:0])),
    (r"^ordinary float32\[2\]; expected", lambda: masked_words(ordinary=TWO)),
    (r"^ordinary int\d+\[2, 4\]; expected", lambda: masked_words(ordinary=IDS)),
    (r"^mask_id \(2,\); expected a scalar", lambda: masked_words(mask_id=TWO)),
    (r"^rate 0; expected .* > 0", lambda: masked_words(rate=0)),
    (r"^rate 1\.5; expected .* <= 1", lambda: masked_words(rate=1.5)),
    (r"^masked -0\.1; expected .* >= 0", lambda: masked_words(masked=-0.1)),
    (r"^random 1\.1; expected .* <= 1", lambda: masked_words(random=1.1)),
    (r"^masked \+ random 1\.3; expected .* <= 1", lambda: masked_words(masked=0.8, random=0.5)),
    (r"^margin \(2,\); expected a sc", lambda: losses.split_hinge_loss(TWO, TWO, TWO, TWO, TWO)),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)
