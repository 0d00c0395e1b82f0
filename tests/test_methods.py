"""The methods as they are trained, each against a closed form or its definition written out."""

import math

import numpy as np
import pytest

from tinygan import GAN, data, grad, metrics
from tinygan.layers import SpectralNorm
from tinygan.tensor import value_of
from tinygan.training import METHODS, Config, Run, evaluation, likelihood, new_game, samples

SMALL = dict(steps=10, batch=16, width=8, depth=1, seed=3)


def run_of(method, source=None, eager=True, **options):
    config = Config(method=method, **(SMALL | options))
    return Run(new_game(config, source or data.ring()), eager)


# -------------------------------------------------------------------------------------- the games


@pytest.mark.parametrize("method", ["r1", "r3gan", "path-length"])
def test_the_critics_loss_is_its_definition(method):
    """So is its gradient: central differences of the definition, which uses none of the losses."""
    run = run_of(method, depth=0, penalty=0.7)
    real, fake = run.game.real().astype(float), run.game.latents().astype(float) + 0.3
    w, b = run.game.critic.parameters()

    def defined(w):  # a linear critic's slope is w everywhere
        scores = [x @ w + b.data for x in (real, fake)]
        slope = 0.7 / 2 * (w * w).sum()
        if method == "r3gan":
            return np.logaddexp(0, scores[1] - scores[0]).mean() + 2 * slope
        return np.logaddexp(0, -scores[0]).mean() + np.logaddexp(0, scores[1]).mean() + slope

    gradients, columns = run.game.critic_gradients(real, fake)
    assert float(columns["critic_loss"]) == pytest.approx(defined(w.data), rel=1e-5)
    for i in range(2):
        step = np.eye(2)[i][:, None] * 1e-4
        slope = (defined(w.data + step) - defined(w.data - step)) / 2e-4
        assert float(gradients[0][i, 0]) == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_relativistic_generators_see_the_data():
    """E softplus(D(x) - D(G(z))), x and z paired by their places."""
    game = run_of("r3gan").game
    real, z = game.real(), game.latents()
    _, columns = game.generator_gradients(z, real)
    apart = (game.critic(real).data - game.critic(game.generator(z)).data).astype(float)
    expected = np.logaddexp(0, apart).mean()
    assert float(columns["generator_loss"]) == pytest.approx(expected, rel=1e-5)


def test_a_spectrally_normalized_critic_stretches_nothing():
    run = run_of("sngan", steps=60, depth=2)
    list(run.train())
    layers = [layer for layer in run.game.critic.layers if isinstance(layer, SpectralNorm)]
    assert len(layers) == 3
    for layer in layers:
        weight = layer.layer.weight.data
        sigma = float((weight * layer.direction()).sum())  # follows by one power iteration a pass
        assert sigma == pytest.approx(np.linalg.norm(weight, 2), rel=0.05)
    assert samples.gradient_norms(run.game, 500).max() < 1.1


def test_instance_noise_falls_to_0_and_is_on_all_that_the_critic_sees():
    run = run_of("noise", steps=8, batch=20000)
    start = METHODS["noise"].noise
    x = np.zeros((20000, 2), np.float32)
    for step in range(8):
        expected = start * (1 - step / 8)
        seen = run.game.with_noise(x)
        assert seen.dtype == np.float32
        assert seen.std() == pytest.approx(expected, rel=5 / math.sqrt(2 * seen.size))
        if step < 2:
            run.iterate()
        run.game.optimizers["generator"].steps = step + 1
    assert float(run.game.noise()[0]) == 0
    assert run_of("gan").game.with_noise(x) is x


def test_real_points_and_fakes_reach_the_critic_with_noise_in_both_players_steps():
    """The noise is wide here, so what lies at the points themselves shows up as far from them."""
    game, seen = run_of("noise", batch=2000).game, []
    critic = game.critic.forward
    game.critic.forward = lambda x: seen.append(np.array(value_of(x))) or critic(x)
    game.noise = lambda: np.array([100], np.float32)
    game.iteration()
    both, fake = seen  # of the critic's step, of the generator's
    for part in (both[:2000], both[2000:], fake):
        assert part.std() == pytest.approx(100, rel=0.1)


def test_the_path_length_enters_the_generators_loss_with_its_weight():
    game = run_of("path-length").game
    z, state = game.latents(), game.rng.bit_generator.state
    _, columns = game.generator_gradients(z)
    game.rng.bit_generator.state = state
    penalty = float(game.path_length.penalty(game.generator, z, game.rng)[0].data)
    alone = np.logaddexp(0, -game.critic(game.generator(z)).data).mean()
    assert penalty > 0
    assert float(columns["generator_loss"]) == pytest.approx(alone + 0.01 * penalty, rel=1e-5)


def test_r1_is_taken_at_data_and_r2_at_fakes():
    """A critic that is x^2 in the first coordinate has the slope 2 x there."""
    real, fake = np.full((4, 2), 1.0), np.full((4, 2), 3.0)
    critic = lambda x: x[:, :1] * x[:, :1]  # noqa: E731
    r1, both = (METHODS[name].penalize for name in ("r1", "r3gan"))
    assert float(r1(critic, real, fake, rng=None)) == pytest.approx(4 / 2)
    assert float(both(critic, real, fake, rng=None)) == pytest.approx(4 / 2 + 36 / 2)


def test_the_settings_of_the_papers_are_those_of_the_table():
    """Adam's memories and what has no option, as docs/methods.md gives them."""
    betas = {"sngan": (0.0, 0.9), "wgan": None, "wgan-gp": (0.0, 0.99), "r3gan": (0.5, 0.99),
             "vae": (0.9, 0.999), "mixture": (0.9, 0.999)}
    assert {name: m.betas for name, m in METHODS.items()} == {
        name: betas.get(name, (0.5, 0.999)) for name in METHODS}
    chosen = {"lr": 3e-3, "penalty": 0.2, "n_critic": 2, "width": 64, "depth": 5, "steps": 30000}
    assert {name: getattr(METHODS["wgan-gp"], name) for name in chosen} == chosen
    assert METHODS["wgan-gp"].images == {
        "lr": 1e-3, "penalty": 10, "betas": (0.0, 0.9), "width": None, "depth": 3, "steps": 20000}
    assert {name: m.conv for name, m in METHODS.items() if m.conv} == {
        "gan": {"lr": 4e-3}, "wgan-gp": {"lr": 4e-3}}
    assert METHODS["noise"].noise == 0.2 and METHODS["path-length"].path_length == 0.01
    assert Config("mixture").resolved().width == 50
    assert run_of("vae").game.generator.log_sigma.data == [-2]


def test_the_target_of_the_path_length_follows_the_lengths():
    """A linear generator x = z W has |J^T y| = |W y|, whose mean over y is the target's limit."""
    run = run_of("path-length", depth=0, latent=2, batch=64)
    for _ in range(1500):
        lengths = run.game.path_length
        _, mean = lengths.penalty(run.game.generator, run.game.latents(), run.game.rng)
        lengths.follow(mean)
    y = np.random.default_rng(0).standard_normal((200_000, 2))
    expected = np.linalg.norm(y @ run.game.generator.layers[0].weight.data.T, axis=1)
    spread = expected.std() / math.sqrt(64 * 2 / 0.01)  # a running mean over 2 / 0.01 batches
    assert float(run.game.path_length.mean.data) == pytest.approx(expected.mean(), abs=5 * spread)


# ------------------------------------------------------------------------------------ likelihoods


def unsplit(name, x):
    """A data set of these points as they are, all of them in every part."""
    n, d = x.shape
    split = dict.fromkeys(("train", "validation", "test"), np.arange(n))
    x = x.astype(np.float32)
    return data.dataset.finite(name, d, split, lambda i: x[i], np.zeros(d), np.ones(d))


def gaussian(covariance, n=4000):
    """Points with exactly this covariance (divisor n) and mean 0."""
    x = np.random.default_rng(0).standard_normal((n, len(covariance)))
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x.T, bias=True)), (x - x.mean(axis=0)).T)
    return unsplit("gaussian", (np.linalg.cholesky(covariance) @ x).T)


def test_a_linear_vae_finds_probabilistic_principal_components():
    """Its largest ELBO is the likelihood of the best model W W^T + s^2 I.

    With k of d components the best s^2 is the mean of the eigenvalues left out, and the mean of the
    posterior decodes to the point's projection, shrunk by (value - s^2) / value (Tipping & Bishop
    1999; Lucas et al. 2019).
    """
    values = np.array([4.0, 1.5, 0.3, 0.1])
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    run = run_of("vae", gaussian(rotation @ np.diag(values) @ rotation.T), depth=0, latent=2,
                 steps=2000, batch=256, lr=0.01, eager=False)
    encoder, decoder = run.game.networks["encoder"], run.game.generator
    decoder.log_sigma.assign([0])  # nearer to the optimum
    list(run.train())
    noise = values[2:].mean()
    best = 0.5 * (4 * math.log(2 * math.pi) + np.log(values[:2]).sum() + 2 * math.log(noise) + 4)
    last = run.columns()["generator_loss"][-60:]
    error = last.std() / math.sqrt(len(last))
    assert best - 5 * error < last.mean() <= best + 5 * error + 0.01
    assert math.exp(2 * float(decoder.log_sigma.data[0])) == pytest.approx(noise, rel=0.1)
    point = (2 * rotation[:, 0] + rotation[:, 2]).astype(np.float32)[None]
    decoded = decoder(encoder(point).data[:, :2]).data[0] @ rotation
    assert decoded == pytest.approx([2 * (4 - noise) / 4, 0, 0, 0], abs=0.15)


def test_the_three_players_of_a_vae_gan_have_their_own_losses():
    """KL and error are the encoder's, the adversarial loss the critic's, both the generator's."""
    game = run_of("vae-gan", batch=6).game
    generator, critic = game.generator, game.critic
    x, prior = game.real(), game.latents()
    state = game.rng.bit_generator.state
    found, columns = game.joint_gradients(x, prior)
    game.rng.bit_generator.state = state
    z, kl = game.encode(x)

    def features(y):
        for layer in critic.layers[:-1]:
            y = layer(y)
        return y

    decoded, drawn = generator(z), generator(prior)
    apart = features(x) - features(decoded)  # 6 examples, 8 features
    error = (apart * apart).sum() * (1 / 12) + 0.5 * math.log(2 * math.pi) * 8
    expected = grad(error + kl, game.networks["encoder"].parameters())
    first = len(generator.parameters())
    for a, b in zip(found[first:first + len(expected)], expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    real, *fakes = (critic(y).data.astype(float) for y in (x, decoded, drawn))
    fake = np.concatenate(fakes)
    critic_loss = np.logaddexp(0, -real).mean() + np.logaddexp(0, fake).mean()
    generator_loss = np.logaddexp(0, -fake).mean() + game.gamma * float(error.data)
    assert float(columns["critic_loss"]) == pytest.approx(critic_loss, rel=1e-5)
    assert float(columns["generator_loss"]) == pytest.approx(generator_loss, rel=1e-5)
    assert float(columns["penalty"]) == pytest.approx(float(kl.data), rel=1e-6)


def test_a_mixture_is_fitted_by_maximum_likelihood():
    """Two Gaussians of known shares, means and spreads, found to a few of their standard errors."""
    rng = np.random.default_rng(0)
    n, truth = 8000, [(0.25, [-2.0, 0.0], [0.5, 0.2]), (0.75, [2.0, 1.0], [0.3, 1.0])]
    parts = [rng.normal(mean, sd, (int(n * share), 2)) for share, mean, sd in truth]
    source = unsplit("two", np.concatenate(parts))
    run = run_of("mixture", source, width=2, steps=1500, batch=500, eager=False)
    # from a start inside one part the other may never be found
    run.game.generator.means.assign([[-1, 0], [1, 0]])
    list(run.train())
    model = run.game.average.network
    order = np.argsort(model.means.data[:, 0])
    shares = np.exp(model.logits.data) / np.exp(model.logits.data).sum()
    for k, (share, _, _), part in zip(order, truth, parts):
        assert shares[k] == pytest.approx(share, abs=0.03)
        np.testing.assert_allclose(model.means.data[k], part.mean(axis=0), atol=0.06)
        np.testing.assert_allclose(np.exp(model.log_sigmas.data[k]), part.std(axis=0), rtol=0.08)


def test_latents_become_samples_of_the_mixture():
    rng, n = np.random.default_rng(0), 40_000
    means = np.array([[-5, 0], [5, 1], [0, 9]], np.float32)
    model = likelihood.GaussianMixture(means, 0.5)
    model.logits.assign(np.log([0.2, 0.3, 0.5]))
    model.log_sigmas.assign(np.log([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]))
    x = model(rng.standard_normal((n, 4), np.float32)).data
    nearest = metrics.nearest(x, means)[0][:, 0]
    for k, share in enumerate([0.2, 0.3, 0.5]):
        mine, sd = x[nearest == k], np.exp(model.log_sigmas.data[k])
        assert len(mine) == pytest.approx(share * n, abs=5 * math.sqrt(share * (1 - share) * n))
        off = np.abs(mine.mean(axis=0) - means[k])
        assert off.max() < 5 * sd.max() / math.sqrt(len(mine))
        np.testing.assert_allclose(mine.std(axis=0), sd, rtol=5 / math.sqrt(2 * len(mine)))


def test_a_component_cannot_shrink_onto_a_point():
    """The likelihood has no bound there; a least standard deviation keeps it finite."""
    model = likelihood.GaussianMixture(np.zeros((1, 2), np.float32), 1e-30)
    loss = model.nll(np.zeros((3, 2), np.float32))
    expected = 2 * math.log(model.floor) + math.log(2 * math.pi)
    assert float(loss.data) == pytest.approx(expected, rel=1e-5)
    (slope,) = grad(loss, [model.log_sigmas])
    assert (slope == 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(30, 3), (30, 8, 8)], ids=["points", "images"])
def test_every_method_is_saved_and_loaded_without_its_data(method, shape, tmp_path):
    x = np.random.default_rng(0).random(shape)
    gan = GAN(method, **SMALL).fit(x)
    gan.save(tmp_path / "gan.npz")
    again = GAN.load(tmp_path / "gan.npz")
    np.testing.assert_array_equal(again.sample(7, seed=1), gan.sample(7, seed=1))


# ------------------------------------------------------------------------------------- evaluation


def test_rows_of_an_evaluation_tell_a_good_model_from_a_broken_one(monkeypatch):
    """Data in place of the generator's samples score as real data do, and ten points do not."""
    def held_out(game, n, seed):
        return game.data.part("validation", n, np.random.default_rng(7))

    monkeypatch.setattr(samples, "sample", held_out)
    x = np.random.default_rng(0).standard_normal((3000, 2))
    game = run_of("gan", data.points(x)).game
    rows = {row.name: row for row in evaluation.rows(game)}
    assert {row.n for name, row in rows.items() if "exact" not in name} == {300}
    for name in ("precision", "recall", "coverage", "sliced Wasserstein", "Wasserstein, exact"):
        row = rows[name]
        assert row.low <= row.generated <= row.high, row
        assert abs(row.generated - row.real) < 2 * (row.high - row.low), row
    assert rows["precision"].broken == 1 and rows["recall"].broken == 0
    assert rows["coverage"].broken < 0.3
    assert rows["Frechet distance"].broken > 10 * rows["Frechet distance"].generated
    near = next(row for name, row in rows.items() if name.startswith("nearer to training"))
    assert near.broken == 1 and abs(near.real - 2400 / 2700) < 0.1
    assert 0 < near.low < near.generated < near.high < 1
    assert (near.low, near.high) == metrics.share_interval(near.generated, 300)


def test_the_report_says_when_data_are_too_few_to_hold_any_back():
    x = np.random.default_rng(0).standard_normal((15, 2))
    text = evaluation.report(run_of("gan", data.points(x)).game)
    assert "too few to hold any back" in text and "precision" in text


def test_the_best_score_so_far_is_that_of_the_log():
    run = run_of("gan")
    assert run.best() == math.inf
    rows = list(run.train())
    lowest = min(row["sliced_wasserstein"] for row in rows)
    assert run.best() == lowest
    assert run.best(lowest / 2, lowest) == pytest.approx(1.5 * lowest)
    assert run.best(2 * lowest, 5 * lowest) == pytest.approx(5 * lowest)
