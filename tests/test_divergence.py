"""Numbers that are not finite: found in their step, named, and explained from the state before."""

import csv
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from matplotlib.figure import Figure

import strict
from tinygan import backend, data, functional, layers, ops
from tinygan.app import plots
from tinygan.app.cli import main
from tinygan.training import (COLUMNS, METHODS, Config, Diverged, Run, checkpoint, diagnosis,
                              new_game, run as runs)

SMALL = dict(steps=12, batch=8, width=8, depth=1, latent=3, seed=5, n_critic=2)
both_ways = pytest.mark.parametrize("eager", [False, True])
EXTREMES = {"NaN": np.nan, "infinite": np.inf, "negative": -np.inf}
RING = data.ring()


@pytest.fixture(autouse=True)
def scored_once(monkeypatch):
    """Scores take most of the time of such short runs, and change none of their steps."""
    monkeypatch.setattr(runs, "EVALUATIONS", 1)


def small(method, **options):
    absent = METHODS[method].without
    settings = {name: value for name, value in SMALL.items() if name not in absent}
    return Config(method=method, **(settings | options))


def run_of(config, source=RING, eager=False):
    return Run(new_game(config, source), eager)


def every(names, *values, short):
    """All combinations of values; the plain tests run one in ``short`` of them."""
    cases = enumerate(product(*values))
    return pytest.mark.parametrize(names, [
        pytest.param(*case, marks=[pytest.mark.thorough] * bool(i % short)) for i, case in cases])


def finite(arrays):
    return all(np.isfinite(value).all() for name, value in arrays.items() if name != "history")


def train(run):
    with np.errstate(all="ignore"):
        return list(run.train())


def diverges(run, step, quantity=".*"):
    """Train: the run stops at a step, in the state before it. Returns what the diagnosis says."""
    message = f"^training diverged at step {step}: the {quantity} is not finite$"
    with pytest.raises(Diverged, match=message) as caught:
        train(run)
    assert caught.value.step == step == run.step + 1 and len(run.history) == run.step
    return diagnosis.first(run.game)


def tally(extreme):
    return "1 NaN" if extreme == "NaN" else "1 infinite"


def spoiled(config, value, step):
    """The ring, except for one number in the first batch of a step, known by what it would be."""
    drawn = []

    def recorded(rng, n):
        drawn.append(RING.draw(rng, n))
        return drawn[-1]

    twin = run_of(config, replace(RING, draw=recorded), eager=True)
    for _ in range(step - 1):
        twin.iterate()
    seen = len(drawn)
    twin.iterate()
    mark = drawn[seen][3, 1]

    def draw(rng, n):
        x = RING.draw(rng, n)
        return np.where(x == mark, np.float32(value), x)

    return replace(RING, draw=draw)


@every("method, eager, extreme", METHODS, [False, True], EXTREMES, short=7)
def test_a_number_in_the_data_stops_the_run_in_its_step(method, eager, extreme):
    config = small(method)
    run = run_of(config, spoiled(config, EXTREMES[extreme], step=4), eager)
    lines = diverges(run, 4)
    assert lines[0].startswith(f"{tally(extreme)} among 16 values of Game.draw, (8, 2), in "), lines
    assert run.history[-1][0] == 3


@every("method, eager, part, extreme", METHODS, [False, True], ["last", "generator"], EXTREMES,
       short=13)
def test_a_parameter_stops_the_run_in_the_next_step(method, eager, part, extreme):
    """Also one that no loss shows: a ReLU is 0 for ever behind -inf."""
    run = run_of(small(method), eager=eager)
    game = run.game
    part = list(game.networks)[-1] if part == "last" else part
    for row in run.train():
        run.stop = row["step"] == 5
    run.stop = False
    tensors = game.networks[part].named_tensors()
    name, bias = [(name, t) for name, t, trained in tensors if trained][1]
    spoilt = bias.data.copy()
    spoilt.reshape(-1)[2] = EXTREMES[extreme]
    bias.assign(spoilt)
    if game.clip and part == "critic" and extreme != "NaN":  # brings infinity back to its limit
        game.clip.limit = np.inf
    lines = diverges(run, 6)
    assert lines == [f"{tally(extreme)} among {bias.size} values of the {part}'s {name}, "
                     f"{bias.shape}, before the step"]


@every("method, lr, eager", METHODS, [1e6, 1e30], [False, True], short=7)
def test_an_absurd_learning_rate_stops_the_run_before_anything_bad_is_kept(method, eager, lr):
    run = run_of(small(method, lr=lr), eager=eager)
    try:
        train(run)
    except Diverged as error:
        assert run.step == error.step - 1 < 12 and finite(run.state_dict()[0])
        lines = diagnosis.first(run.game)
        assert "among" in lines[0] and len(lines) > 2 and lines[1].startswith("at "), lines
        assert all(line.startswith("  from ") and "NaN" not in line for line in lines[2:]), lines
    else:  # so far from the data a mixture has no gradient
        assert run.step == 12 and (lr == 1e6 or method == "mixture")
        assert finite(run.state_dict()[0])


# ---------------------------------------------------------------- what the diagnosis says


def test_the_step_the_layer_the_operation_the_place_and_the_inputs_are_named():
    run = run_of(small("wgan-gp"))
    weight = run.game.critic.layers[2].weight
    weight.assign(weight.data * 0 + 3e38)
    head, place, *inputs = diagnosis.first(run.game)
    assert "infinite among 16 values of matmul, (16, 1), in critic step 1, " in head, head
    assert head.endswith("the critic (Sequential), the critic's layers.2 (Dense)"), head
    assert place.startswith("at layers.py:") and "matmul" in place
    assert inputs[1] == "  from the critic's layers.2.weight, (8, 1), at most 3e+38"


def test_what_a_call_was_for_is_named_in_an_autoencoder_too():
    run = run_of(small("vae", lr=1e30))
    with pytest.raises(Diverged):
        train(run)
    assert ", in the joint step, the encoder (Sequential), " in diagnosis.first(run.game)[0]


@both_ways
def test_a_gradient_that_is_not_finite_is_found_behind_a_finite_loss(eager, monkeypatch):
    """The derivative of the root is infinite at 0, and the root is not."""
    def loss(fake):
        return functional.mean(fake) + ops.sum(ops.power(fake - fake, 0.5))

    monkeypatch.setitem(METHODS, "wgan", replace(METHODS["wgan"], generator_loss=loss))
    lines = diverges(run_of(small("wgan"), eager=eager), 1, "generator optimizer's square")
    assert lines[0].startswith("8 infinite among 8 values of power, (8, 1), in generator step, "
                               "the gradient of power (ops.py:"), lines
    assert lines[1].startswith("at game.py:") and "grad(loss" in lines[1], lines


def test_a_later_step_of_the_critic_is_counted():
    run = run_of(small("wgan-gp", lr=1e30))
    with pytest.raises(Diverged):
        train(run)
    assert ", in critic step 2, " in diagnosis.first(run.game)[0]


def test_an_overflow_in_an_optimizer_is_named_by_its_vector_and_explained_by_gradients():
    run = run_of(small("wgan-gp"))
    step = run.game.optimizers["critic"].step
    run.game.optimizers["critic"].step = lambda grads: step([g + 1e25 for g in grads])
    head, place, *inputs = diagnosis.first(run.game)
    assert head == ("33 infinite among 33 values of the critic optimizer's v, (33,), "
                    "in critic step 1")
    assert place.startswith("at game.py:") and place.endswith(".step(gradients)")
    assert inputs[0].startswith("  from the gradient of the critic's layers.0.weight, (2, 8), at ")
    assert inputs[-1] == "  from the critic optimizer's v, (33,), at most 0"


def test_a_layer_that_calls_numpy_by_itself_is_watched_too():
    class Logarithm(layers.Module):
        def forward(self, x):
            return np.log(ops.value_of(x) * 0)

    run = run_of(small("wgan-gp"))
    run.game.critic.layers.insert(0, Logarithm())
    lines = diagnosis.first(run.game)
    assert lines[0].startswith("32 infinite among 32 values of the critic's layers.0 (Logarithm)")


def test_a_run_on_a_device_is_explained_in_the_same_words():
    said = []
    for device in ("cpu", "strict"):
        game = new_game(small("wgan-gp"), RING, device)
        assert diagnosis.first(game) == []
        weight = game.critic.layers[2].weight
        weight.assign(weight.data * 0 + 3e38)
        said.append(diagnosis.first(game))
    assert isinstance(weight.data, strict.StrictArray) and said[0] == said[1] != []


def test_a_critic_without_a_slope_is_no_cause():
    """At a gradient of 0 the rule of the norm divides by infinity, which is as it should be."""
    game = run_of(small("wgan-gp"), RING, eager=True).game
    for p in game.critic.parameters():
        p.assign(np.zeros(p.shape))
    assert diagnosis.first(game) == []


def test_nothing_stays_wrapped():
    run = run_of(small("wgan-gp"))
    game, primitives = run.game, list(diagnosis.PRIMITIVES.values())
    before = [dict(vars(p)) for p in primitives]
    assert diagnosis.first(game) == []
    game.critic.layers[0].bias.assign(np.full(8, np.nan))
    assert "before the step" in diagnosis.first(game)[0]
    game.critic.layers[0].bias.assign(np.full(8, 3e38))
    assert diagnosis.first(game)
    assert before == [dict(vars(p)) for p in primitives] and backend.tracer.get() is None
    for holder in (*game.critic.modules(), *game.generator.modules(), *game.optimizers.values()):
        assert not {"forward", "step"} & vars(holder).keys()


def test_a_replayed_run_comes_back_to_the_state_of_the_eager_one(monkeypatch):
    """From copies made now and then; here after every step, and never."""
    states = []
    config = small("wgan-gp")
    source = spoiled(config, np.nan, step=9)
    for eager, interval in ((True, 0.0), (False, 0.0), (False, 1e9)):
        monkeypatch.setattr(runs, "KEEP_EVERY", interval)
        run = run_of(config, source, eager)
        with pytest.raises(Diverged):
            train(run)
        arrays, values = run.state_dict()
        arrays["history"] = np.delete(arrays["history"], COLUMNS.index("seconds"), axis=1)
        states.append(({k: v.tobytes() for k, v in arrays.items()}, values["step"], values["rng"]))
    assert states[0] == states[1] == states[2] and states[0][1] == 8


# ---------------------------------------------------------------------- the command line

ARGUMENTS = ["--width", "8", "--depth", "1", "--batch", "8", "--n-critic", "2", "--steps", "12",
             "--device", "cpu"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())
    return tmp_path / "run"


def ends_by_divergence(folder, arguments, capsys):
    """Exit code 7, one line, the checkpoint kept, a dump that is explained.

    Returns the step and what the explanation says.
    """
    assert main(["train", *arguments]) == 7
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("tinygan: training diverged at step ") and len(told) < 600
    assert (f"(see tinygan explain {folder.name}); the checkpoint of step 0 is kept in "
            f"{folder.name}; try --lr 0.0") in told
    assert json.loads((folder / "run.json").read_text())["exit"] in told
    step = int(told.split()[5][:-1])
    for name, at in (("checkpoint.npz", 0), ("diverged.npz", step - 1)):
        header, arrays = checkpoint.load(folder / name)
        assert header["values"]["step"] == at and finite(arrays)
    with open(folder / "log.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(n) for n in range(1, step)]
    assert main(["explain", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"step {step}, done again from {folder}/diverged.npz:"
    assert f"; first are {lines[1]} (see" in told
    return step, lines[1:]


def test_a_learning_rate_that_diverges_is_told_and_explained(folder, capsys):
    step, lines = ends_by_divergence(folder, [*ARGUMENTS, "--lr", "1e8", "--out", "run"], capsys)
    assert step < 5 and " infinite among " in lines[0] and " optimizer's v, (" in lines[0], lines
    assert lines[1].startswith("at game.py:") and lines[2].startswith("  from the gradient of the ")


def test_bad_data_is_told_and_explained_and_forgotten_by_the_next_start(folder, monkeypatch,
                                                                        capsys):
    config = Config(**SMALL | {"latent": 2, "seed": 0})
    bad = spoiled(config, np.nan, step=7)
    monkeypatch.setitem(data.TOYS, "ring", lambda: bad)
    step, lines = ends_by_divergence(folder, [*ARGUMENTS, "--out", "run"], capsys)
    assert step == 7, lines
    assert lines[0] == "1 NaN among 16 values of Game.draw, (8, 2), in critic step 1"
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())
    assert main(["train", "--resume", "run", "--device", "cpu"]) == 0
    assert sorted(p.name for p in folder.iterdir()) == [
        "best.npz", "checkpoint.npz", "log.csv", "panel.png", "report.html", "run.json",
         "samples.npz"]
    assert main(["explain", "run"]) == 4
    assert "no training diverged here" in capsys.readouterr().err
    assert main(["explain", "run/checkpoint.npz"]) == 0
    assert "every value is finite" in capsys.readouterr().out


def test_a_bad_checkpoint_is_not_trained_and_not_touched(folder, capsys):
    assert main(["train", *ARGUMENTS, "--out", "run"]) == 0
    header, arrays = checkpoint.load(folder / "checkpoint.npz")
    arrays["generator/layers.0.bias"][3] = np.inf
    header.pop("sha256")
    checkpoint.save(folder / "checkpoint.npz", header, arrays)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["train", "--resume", "run", "--steps", "20", "--device", "cpu"]) == 7
    told = capsys.readouterr().err
    assert "diverged at step 12: the generator's layers.0.bias is not finite" in told
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["explain", "run/checkpoint.npz"]) == 0
    assert ("1 infinite among 8 values of the generator's layers.0.bias, (8,), before the step"
            in capsys.readouterr().out)
