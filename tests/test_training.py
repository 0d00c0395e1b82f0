"""The training loop, its checkpoints and the estimator: what a step changes, repeats, resumes."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest

import tinygan as tg
from tinygan import GAN, backend, data
from tinygan.program import Program
from tinygan.training import (METHODS, Config, Game, Run, checkpoint, estimator, networks,
                              new_game, samples)
from tinygan.training import run as runs
from tinygan.training.checkpoint import CheckpointError
from tinygan.training.run import COLUMNS, Diverged

SMALL = dict(steps=6, batch=8, width=8, depth=1, latent=3, seed=5, n_critic=2)
pytestmark = pytest.mark.usefixtures("few_scored")
every_method = pytest.mark.parametrize("method", METHODS)
GAMES = [name for name, method in METHODS.items() if method.game is Game]
every_game = pytest.mark.parametrize("method", GAMES)


def run_of(method="wgan-gp", source=None, eager=False, **options):
    config = Config(method=method, **(SMALL | options))
    return Run(new_game(config, source or data.ring()), eager)


def train(run, until=None):
    """Train, up to a step if one is given."""
    for row in run.train():
        run.stop = row["step"] == until
    run.stop = False
    return run


def bits(holder):
    """A network's or an optimizer's state to the bit."""
    return {name: value.tobytes() for name, value in holder.state_dict().items()}


def run_bits(run):
    """All that a run has made, except for the time it took."""
    arrays, values = run.state_dict()
    arrays["history"] = np.delete(arrays["history"], COLUMNS.index("seconds"), axis=1)
    del values["seconds"]
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}, values


@functools.cache
def whole(method="wgan-gp"):
    """A run from its start to its end, for several tests: do not change it."""
    return train(run_of(method))


# ----------------------------------------------------------------------------------- an iteration


def snapshot(game):
    """The state of every part, to the bit."""
    return {part: bits(holder) for part, holder in game.parts().items()}


def moves(game):
    """Play an iteration: (player, state before its optimizer's step) for each step."""
    seen = []

    def watched(player, step):
        def watch(gradients):
            seen.append((player, snapshot(game)))
            step(gradients)
        return watch

    for player, optimizer in game.optimizers.items():
        optimizer.step = watched(player, optimizer.step)
    game.iteration()
    for optimizer in game.optimizers.values():
        del optimizer.step
    return seen


@every_game
def test_the_critics_steps_leave_the_generator_alone(method):
    game = run_of(method, eager=True).game
    start = snapshot(game)
    then = next(state for player, state in moves(game) if player == "generator")
    assert all(then[part] == start[part]
               for part in ("generator", "generator_optimizer", "average"))
    assert then["critic"] != start["critic"]


@every_game
def test_the_generators_step_leaves_the_critic_alone(method):
    """Except for the vectors of spectral normalization, which every pass moves."""
    game = run_of(method, eager=True).game
    before, after = moves(game)[-1][1], snapshot(game)
    weights = [name for name in before["critic"] if not name.endswith(".u")]
    assert all(before["critic"][name] == after["critic"][name] for name in weights)
    assert before["critic_optimizer"] == after["critic_optimizer"]
    assert before["generator"] != after["generator"] and before["average"] != after["average"]


@pytest.mark.parametrize("n_critic", [1, 3])
def test_an_iteration_is_n_critic_steps_of_the_critic_and_one_of_the_generator(n_critic):
    game = run_of(n_critic=n_critic, eager=True).game
    assert [player for player, _ in moves(game)] == ["critic"] * n_critic + ["generator"]
    steps = {player: optimizer.steps for player, optimizer in game.optimizers.items()}
    assert steps == {"critic": n_critic, "generator": 1}


def test_both_learning_rates_fall_to_zero_together():
    game = run_of("wgan", lr=0.5, steps=10, n_critic=5).game
    critic, generator = game.optimizers["critic"].lr, game.optimizers["generator"].lr
    for step in range(11):
        assert generator(step) == pytest.approx(0.5 * (1 - step / 10), abs=1e-15)
        assert [critic(5 * step + i) for i in range(5)] == [generator(step)] * 5


def largest_weight(game):
    return max(np.abs(p.data).max() for p in game.critic.parameters())


def test_wgan_clips_the_critics_weights_after_every_step():
    game = run_of("wgan", n_critic=1, eager=True).game
    limit = METHODS["wgan"].clip
    assert largest_weight(game) > limit
    for _ in range(3):
        game.iteration()
        assert largest_weight(game) == np.float32(limit)  # it binds, and nothing is beyond


@pytest.mark.parametrize("method", ["gan", "minimax", "wgan-gp"])
def test_other_methods_do_not_clip(method):
    run = run_of(method)
    run.iterate()
    assert largest_weight(run.game) > METHODS["wgan"].clip


def test_the_wasserstein_estimate_leaves_the_penalty_out():
    """It is E D(x) - E D(G(z)) of the step's batches; the critic's loss is -that + w penalty."""
    weight = 7.0
    game = run_of(penalty=weight, n_critic=1, eager=True).game
    state = game.rng.bit_generator.state
    (fake,), real = game.fakes(1), game.real()
    scores = [game.critic(x).data.mean(dtype=np.float64) for x in (real, fake)]
    game.rng.bit_generator.state = state
    columns = game.iteration()
    estimate, penalty = columns["w_estimate"], columns["penalty"]
    assert estimate == pytest.approx(scores[0] - scores[1], rel=1e-4, abs=1e-6)  # float32 sums
    assert penalty > 0
    assert columns["critic_loss"] == pytest.approx(weight * penalty - estimate, rel=1e-6)


@every_method
def test_the_log_has_what_the_method_measures(method):
    columns = whole(method).columns()
    assert tuple(columns) == COLUMNS and np.array_equal(columns["step"], np.arange(1, 7))
    missing = {name for name, values in columns.items() if np.isnan(values).any()}
    expected = set()
    if METHODS[method].penalty is None and method not in ("vae", "vae-gan"):  # those: the KL
        expected |= {"penalty"}
    if method not in ("wgan", "wgan-gp"):
        expected |= {"w_estimate"}
    if method in ("vae", "mixture"):
        expected |= {"critic_loss", "gradient_norm"}
    assert missing == expected
    assert all(np.isnan(columns[name]).all() for name in missing)
    assert (np.diff(columns["seconds"]) > 0).all()


def test_a_long_run_logs_and_evaluates_now_and_then():
    run = run_of("gan", steps=1100, batch=1, width=1, depth=0)
    rows = list(run.train())
    assert rows[-1]["step"] == 1100 and len(rows) <= runs.ROWS + runs.EVALUATIONS + 1
    evaluated = [row["step"] for row in rows if not np.isnan(row["sliced_wasserstein"])]
    assert len(evaluated) == 50 and evaluated[-1] == 1100


@pytest.mark.parametrize("steps", [9, 11, 14])
def test_the_last_step_of_any_run_is_scored(steps, monkeypatch):
    monkeypatch.setattr(runs, "EVALUATIONS", 5)
    rows = list(run_of("gan", steps=steps, batch=1, width=1, depth=0).train())
    assert rows[-1]["step"] == steps and np.isfinite(rows[-1]["sliced_wasserstein"])


def test_scores_are_against_the_validation_part_and_their_yardstick_is_training_data():
    points = data.points(np.arange(200.0).reshape(100, 2))
    asked = []
    watched = dataclasses.replace(points)
    object.__setattr__(watched, "part", lambda name, n, rng: asked.append(name) or points.at(
        points.split[name][:n]))
    samples.score(watched, points.at(np.arange(20)), np.random.default_rng(0))
    assert asked == ["validation"]
    samples.yardstick(watched, n=20, draws=1)
    assert asked == ["validation", "train", "validation"]


def test_the_frozen_critic_is_a_copy_in_evaluation_mode():
    game = run_of("sngan").game
    frozen = samples.frozen_critic(game)
    assert not any(module.training for module in frozen.modules())
    assert all(module.training for module in game.critic.modules())
    assert not set(frozen.parameters()) & set(game.critic.parameters())


def test_a_walk_goes_from_stop_to_stop_and_comes_back(monkeypatch):
    """In small steps all the way, also past the stops and from the end to the start."""
    monkeypatch.setattr(samples, "generate", lambda game, z: z)
    game = run_of(latent=20).game
    path = samples.walk(game, stops=4, between=30, n=2, seed=1)
    stops = np.random.default_rng(1).standard_normal((4, 2, 20))
    np.testing.assert_allclose(path[::30], stops, rtol=1e-6, atol=1e-6)
    steps = np.linalg.norm(np.diff(path, axis=0, append=path[:1]), axis=-1)
    assert steps.max() < 3 * steps.min() < 1


def test_a_critic_with_batch_norm_sees_real_and_fake_batches_apart():
    """As Radford et al. 2016 train it; without such a layer one pass gives the same scores."""
    pictures = data.image_array(np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8))
    for method, passes in (("gan", 2), ("r1", 1)):
        game = run_of(method, pictures, net="conv", width=2, depth=None).game
        real, seen = game.real(), []
        critic = game.critic.forward
        game.critic.forward = lambda x: seen.append(len(x)) or critic(x)
        game.scores(real, game.fakes(1)[0])
        assert seen == [2 * len(real) // passes] * passes


def test_data_without_modes_is_scored_without_them():
    cloud = data.points(np.random.default_rng(0).normal(size=(50, 3)))
    columns = train(run_of(source=cloud)).columns()
    assert np.isnan(columns["modes"]).all() and np.isfinite(columns["sliced_wasserstein"]).all()


# ------------------------------------------------------------------------------ repeat and resume


@every_method
def test_the_same_seed_gives_the_same_run(method):
    """The one eager, the other replayed."""
    first = run_bits(train(run_of(method, eager=True)))
    assert run_bits(whole(method)) == first
    name = next(name for name in first[0] if name.startswith("generator/"))
    assert run_bits(train(run_of(method, seed=6, eager=True)))[0][name] != first[0][name]


@every_method
def test_a_replayed_run_is_the_eager_run(method):
    """To the bit, in all its state; also where a replayed run is continued eagerly."""
    eager, replayed, rest = (run_of(method, eager=how, steps=12) for how in (True, False, True))
    assert isinstance(replayed.play, Program) and not isinstance(eager.play, Program)
    train(replayed, until=7)
    rest.load_state_dict(*replayed.state_dict())
    assert run_bits(train(eager)) == run_bits(train(replayed)) == run_bits(train(rest))


def test_looking_at_a_run_does_not_change_it():
    plain, watched = run_of(), run_of()
    for _ in range(3):
        plain.iterate()
        watched.iterate()
        samples.evaluate(watched.game, watched.step)
        samples.sample(watched.game, 10, seed=1)
        samples.gradient_norms(watched.game, 10)
        watched.state_dict()
        samples.yardstick(watched.game.data, n=20, draws=1)
    assert run_bits(plain) == run_bits(watched)


@every_method
@pytest.mark.parametrize("stop", [4, pytest.param(1, marks=pytest.mark.thorough)])
def test_a_resumed_run_is_the_uninterrupted_one(method, stop, tmp_path):
    """To the bit: networks, average, optimizers, rng and log, saved and loaded on the way."""
    gan = GAN(method, **SMALL)
    train(gan.prepare("ring"), until=stop)
    assert gan.run_.step == stop
    gan.save(tmp_path / "run.npz")
    again = GAN.load(tmp_path / "run.npz")
    assert run_bits(again.run_) == run_bits(gan.run_)
    assert run_bits(train(again.run_)) == run_bits(whole(method))


def test_the_state_of_a_run_goes_into_another_run():
    half, fresh = train(run_of(), until=3), run_of(seed=5)
    fresh.load_state_dict(*half.state_dict())
    assert fresh.seconds == half.seconds
    assert run_bits(train(fresh)) == run_bits(whole())


@pytest.mark.parametrize("spoil", [
    lambda a, v: a.pop("history"), lambda a, v: a.update(history=np.ones((2, 3))),
    lambda a, v: a.pop("critic/layers.0.weight"), lambda a, v: v.pop("rng"),
    lambda a, v: a.update({"generator_optimizer/extra": np.ones(1)})])
def test_a_state_of_another_kind_is_refused(spoil):
    run = run_of()
    arrays, values = run.state_dict()
    spoil(arrays, values)
    with pytest.raises((ValueError, KeyError)):
        run.load_state_dict(arrays, values)


# ------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("method, part", [(name, player) for name in METHODS
                                          for player in run_of(name).game.networks])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_the_run(method, part, value):
    run = run_of(method, eager=np.isinf(value))
    run.iterate()
    last = run.game.networks[part].parameters()[-1]
    last.assign(np.full(last.shape, value))
    if method == "wgan":
        run.game.clip.limit = np.inf  # clipping would bring infinity back to the limit
    message = "training diverged at step 2: the .* is not finite"
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=message):
        train(run)


def test_data_that_is_not_finite_stops_the_run():
    def draw(rng, n):
        return np.full((n, 2), np.nan, np.float32)

    spoiled = dataclasses.replace(data.ring(), draw=draw)
    with pytest.raises(Diverged, match="step 1: the critic loss is not finite"):
        train(run_of(source=spoiled))


def test_a_parameter_that_is_not_finite_is_named():
    run = run_of()
    run.check_finite()
    run.game.generator.layers[0].bias.assign(np.full(8, np.inf))
    with pytest.raises(Diverged, match=r"step 0: the generator's layers\.0\.bias is not finite"):
        run.check_finite()


# ----------------------------------------------------------------------------------- the settings


@pytest.mark.parametrize("options, message", [
    ({"method": "gna"}, "unknown method 'gna'; choose gan, minimax, lsgan"),
    ({"steps": 0}, "steps must be"), ({"steps": 1.5}, "steps must be a whole number"),
    ({"batch": -1}, "batch must be"), ({"batch": True}, "batch must be"),
    ({"width": 0}, "width must be"), ({"depth": -1}, "depth must be"),
    ({"latent": "2"}, "latent must be"), ({"n_critic": 0}, "n_critic must be"),
    ({"seed": -1}, "seed must be"), ({"lr": -1.0}, "lr must be"),
    ({"lr": float("nan")}, "lr must be"), ({"lr": "fast"}, "lr must be"),
    ({"penalty": float("inf")}, "penalty must be"),
    ({"method": "gan", "penalty": 1.0}, "method gan has no penalty; leave it out"),
    ({"method": "mixture", "net": "conv"}, "method mixture has no net conv")])
def test_unusable_settings_are_value_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options).resolved()
    with pytest.raises(ValueError, match=message):
        GAN(**options).fit("ring")


@every_method
def test_settings_left_out_are_the_methods_own(method):
    config, own = Config(method=method).resolved(), METHODS[method]
    n_critic = None if "n_critic" in own.without else own.n_critic
    assert (config.lr, config.n_critic, config.penalty) == (own.lr, n_critic, own.penalty)
    assert config.steps == own.steps
    assert Config(method=method, lr=0.5).resolved().lr == 0.5


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_networks_have_the_depth_and_width_asked_for(depth):
    run = run_of(depth=depth, width=7, latent=4)
    shapes = [p.shape for p in run.game.generator.parameters() if len(p.shape) == 2]
    assert shapes == list(zip([4] + [7] * depth, [7] * depth + [2]))
    assert run.game.critic(np.ones((5, 2), np.float32)).shape == (5, 1)


# ---------------------------------------------------------------------------------- the estimator


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).normal(size=(60, 3)) * [1, 50, 0.01] + [0, 1000, -5]


@pytest.fixture(scope="module")
def fitted(points):
    return GAN(**SMALL).fit(points)


def test_the_constructor_only_stores(monkeypatch):
    def early(name=None):
        pytest.fail("nothing is resolved before fit")

    monkeypatch.setattr(backend, "resolve_device", early)
    gan = GAN("nonsense", steps=-3, device="toaster")
    assert (gan.method, gan.steps, gan.device, gan.lr) == ("nonsense", -3, "toaster", None)
    assert not [name for name in vars(gan) if name.endswith("_")]


def test_parameters_are_got_and_set():
    gan = GAN(steps=7, lr=0.1)
    parameters = gan.get_params()
    assert [parameters[name] for name in ("method", "steps", "lr")] == ["wgan-gp", 7, 0.1]
    assert GAN(**parameters).get_params() == parameters
    assert gan.set_params(steps=9, method="gan") is gan and gan.get_params()["steps"] == 9
    message = "GAN has no parameter 'epochs'; choose method, net, steps"
    with pytest.raises(ValueError, match=message):
        gan.set_params(epochs=3)


def test_fit_returns_the_object_and_leaves_the_parameters(points):
    gan = GAN(**SMALL)
    before = gan.get_params()
    assert gan.fit(points) is gan and gan.get_params() == before


@pytest.mark.parametrize("use", [
    lambda gan: gan.sample(1), lambda gan: gan.generator_, lambda gan: gan.critic_,
    lambda gan: gan.history_, lambda gan: gan.save("never.npz")])
def test_what_is_not_fitted_says_so(use):
    with pytest.raises(ValueError, match=r"not fitted yet: call fit\(X\) first"):
        use(GAN())


def test_samples_are_in_the_datas_units(fitted, points):
    """Standardized columns times the spread plus the mean; far from trained, but near the cloud."""
    drawn = fitted.sample(500)
    assert drawn.shape == (500, 3)
    seen = points[data.points(points).split["train"]]
    inside = (drawn - seen.mean(axis=0)) / seen.std(axis=0)
    np.testing.assert_allclose(inside, samples.sample(fitted.run_.game, 500), rtol=1e-4, atol=1e-4)
    assert np.abs(inside.mean(axis=0)).max() < 5
    assert np.abs(drawn[:, 1] - 1000).max() < 5000 and np.abs(drawn[:, 2] + 5).max() < 1


def test_the_same_seed_gives_the_same_samples(fitted):
    a, b, c = fitted.sample(9, seed=1), fitted.sample(9, seed=1), fitted.sample(9, seed=2)
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert fitted.sample().shape == (1, 3) and fitted.sample(0).shape == (0, 3)
    assert fitted.sample(5000).shape == (5000, 3)  # more than one part


def test_samples_come_from_the_averaged_generator_in_evaluation(fitted):
    game, generator = fitted.run_.game, fitted.generator_
    assert generator is game.average.network and not generator.training
    z = backend.normal(backend.rng(4), (5, 3))
    np.testing.assert_array_equal(samples.sample(game, 5, seed=4), generator(z).data)
    assert fitted.critic_(samples.sample(game, 5)).shape == (5, 1)
    assert len(fitted.history_["step"]) == SMALL["steps"]


def test_fitting_twice_is_fitting_once(points, fitted):
    gan = GAN(**SMALL).fit("ring").fit(points)
    assert run_bits(gan.run_) == run_bits(fitted.run_)


@pytest.mark.parametrize("kind", ["npy", "npz", "csv"])
@pytest.mark.parametrize("as_path", [str, Path])
def test_a_file_is_as_good_as_its_array(kind, as_path, points, fitted, tmp_path):
    path = tmp_path / f"cloud.{kind}"
    if kind == "csv":
        np.savetxt(path, points, delimiter=",", fmt="%.18g")
    else:
        (np.save if kind == "npy" else np.savez)(path, points)
    assert run_bits(GAN(**SMALL).fit(as_path(path)).run_) == run_bits(fitted.run_)


@pytest.mark.parametrize("source", ["ring", "grid", "swissroll"])
def test_the_name_of_a_toy_and_its_data_set_are_the_same(source):
    by_name, by_object = GAN(**SMALL).fit(source), GAN(**SMALL).fit(data.TOYS[source]())
    assert run_bits(by_name.run_) == run_bits(by_object.run_)


def test_unusable_data_are_a_data_error():
    arrays = np.full((5, 2), np.nan), np.ones((1, 2)), np.ones((2, 2, 2))
    for X in ("no such thing", *arrays, [["a"], ["b"]]):
        with pytest.raises(data.DataError):
            GAN(**SMALL).fit(X)


def test_a_loaded_gan_samples_the_same_without_its_data(fitted, tmp_path):
    fitted.save(tmp_path / "gan.npz")
    gan = GAN.load(tmp_path / "gan.npz")
    assert np.array_equal(gan.sample(20, seed=3), fitted.sample(20, seed=3))
    used = fitted.run_.config
    resolved = {name: getattr(used, name) for name in ("accumulate", "lr", "n_critic", "penalty")}
    assert gan.get_params() == fitted.get_params() | resolved
    for ours, theirs in zip(gan.history_.values(), fitted.history_.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    gan.save(tmp_path / "again.npz")
    assert checkpoint.load(tmp_path / "again.npz")[0] == checkpoint.load(tmp_path / "gan.npz")[0]


@pytest.mark.parametrize("method, earlier", [
    ("wgan-gp", (0.5, 0.9)), ("r3gan", (0.5, 0.99)), ("wgan", None)])
def test_a_run_goes_on_with_the_memories_of_adam_it_was_made_with(method, earlier, tmp_path):
    def memories(gan):
        return {getattr(own, "betas", None) for own in gan.run_.game.optimizers.values()}

    gan = GAN(method, **SMALL)
    gan.prepare("ring")
    gan.save(tmp_path / "gan.npz")
    assert memories(GAN.load(tmp_path / "gan.npz")) == {METHODS[method].betas}
    header, arrays = checkpoint.load(tmp_path / "gan.npz")
    assert header.pop("betas") == (earlier and list(METHODS[method].betas))
    checkpoint.save(tmp_path / "earlier.npz", header, arrays)  # as one of before they were written
    again = GAN.load(tmp_path / "earlier.npz")
    assert memories(again) == {earlier}
    again.save(tmp_path / "again.npz")
    assert memories(GAN.load(tmp_path / "again.npz")) == {earlier}
    for betas in ([0.5], [0.5, 1.0], "no", 3, {"a": 1}):
        checkpoint.save(tmp_path / "forged.npz", header | {"betas": betas}, arrays)
        if method != "wgan":
            with pytest.raises(CheckpointError):
                GAN.load(tmp_path / "forged.npz")


def test_continuing_needs_the_same_data(points, tmp_path):
    gan = GAN(**SMALL)
    train(gan.prepare(points), until=3)
    gan.save(tmp_path / "gan.npz")
    with pytest.raises(ValueError, match="loaded without its training data; give load"):
        train(GAN.load(tmp_path / "gan.npz").run_)
    with pytest.raises(data.DataError, match="not the data that this GAN was trained on"):
        GAN.load(tmp_path / "gan.npz", X=points + 1)
    again = GAN.load(tmp_path / "gan.npz", X=points)
    assert run_bits(train(again.run_)) == run_bits(GAN(**SMALL).fit(points).run_)


def test_a_run_can_be_continued_for_longer(tmp_path):
    GAN(**SMALL).fit("ring").save(tmp_path / "gan.npz")
    gan = GAN.load(tmp_path / "gan.npz", steps=8)
    assert train(gan.run_).step == 8 and gan.steps == 8
    assert np.array_equal(gan.history_["step"], np.arange(1, 9))


def test_a_file_named_like_a_toy_is_not_the_toy(points, tmp_path):
    np.save(tmp_path / "ring.npy", points)
    gan = GAN(**SMALL).fit(str(tmp_path / "ring.npy"))
    gan.save(tmp_path / "gan.npz")
    assert np.array_equal(GAN.load(tmp_path / "gan.npz").sample(5), gan.sample(5))


def test_the_source_of_the_data_survives_loading_and_saving(tmp_path):
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    GAN(**SMALL).fit("ring").save(a)
    GAN.load(a).save(b)
    assert checkpoint.load(b)[0]["data"] == checkpoint.load(a)[0]["data"]


RING = {"name": "ring", "dim": 2, "source": "ring"}


@pytest.mark.parametrize("header", [
    {}, {"data": {}, "config": {}}, {"data": RING, "config": dict(SMALL), "values": {}}])
def test_an_intact_file_with_other_contents_is_a_checkpoint_error(header, tmp_path):
    arrays = {"data/mean": np.zeros(2), "data/scale": np.ones(2)}
    checkpoint.save(tmp_path / "x.npz", header, arrays)
    with pytest.raises(CheckpointError):
        GAN.load(tmp_path / "x.npz")


def test_networks_of_too_many_weights_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr(estimator, "MOST_WEIGHTS", 63)
    with pytest.raises(MemoryError, match="networks of more than 63 weights"):
        GAN(**SMALL).prepare("ring")


@pytest.mark.parametrize("options", [
    {"depth": 0}, {"depth": 1}, {"depth": 3}, {"method": "mixture", "depth": None, "width": 7},
    {"net": "conv", "depth": None}, {"method": "path-length", "net": "conv", "depth": None}])
def test_weights_are_counted_before_they_are_made(options):
    pictures = data.image_array(np.random.default_rng(0).integers(0, 256, (20, 9, 17), np.uint8))
    game = run_of(**{"method": "r1", "source": pictures} | options).game
    made = [p.size for network in game.networks.values() for name, p, _ in network.named_tensors()
            if name.endswith("weight") or name == "means"]
    assert networks.weights(game.config, game.data) == sum(made)


@pytest.mark.parametrize("change, message", [
    (lambda header, arrays: header["config"].update(width=500), "more weights than the file has"),
    (lambda header, arrays: arrays["data/scale"].__setitem__(0, -1), "the mean and the scale")])
def test_a_checkpoint_of_impossible_content_is_refused_by_name(change, message, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    GAN("gan", **SMALL).fit(pictures).save(tmp_path / "a.npz")
    header, arrays = checkpoint.load(tmp_path / "a.npz")
    header.pop("sha256")
    change(header, arrays)
    checkpoint.save(tmp_path / "b.npz", header, arrays)
    with pytest.raises(CheckpointError, match=message):
        GAN.load(tmp_path / "b.npz")


def test_data_moved_to_elsewhere_are_not_the_runs_data(tmp_path):
    """By whole numbers, so that the scale is the same to the bit."""
    points = np.random.default_rng(0).integers(0, 8, (16, 2)).astype(float)
    GAN(**SMALL).fit(points).save(tmp_path / "gan.npz")
    assert np.array_equal(data.points(points + 64).scale, data.points(points).scale)
    with pytest.raises(data.DataError, match="^points: not .*another mean or scale"):
        GAN.load(tmp_path / "gan.npz", X=points + 64)


def test_a_generator_that_gives_no_finite_numbers_is_not_sampled(points):
    gan = GAN(**SMALL).fit(points)
    gan.generator_.parameters()[-1].assign(np.full(3, np.nan))
    with pytest.raises(ValueError, match="the generator gives numbers that are not finite"):
        gan.sample(5)


def test_the_public_names_are_reached_from_the_package():
    assert tg.GAN is GAN and tg.training.Run is Run and tg.training.METHODS is METHODS
