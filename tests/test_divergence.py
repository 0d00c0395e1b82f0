"""Numbers that are not finite: found in the step in which they arise, named, and explained from the state before it."""

import csv
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from matplotlib.figure import Figure

from tinygan.training import checkpoint, diagnosis, game as training
from tinygan import data, functional, ops
from tinygan.app import plots
from tinygan.app.cli import main
from tinygan.training.likelihood import trainer as trainer_of
from tinygan.training.methods import METHODS, Config
from tinygan.training.game import Diverged

SMALL = dict(steps=12, batch=8, width=8, depth=1, latent=3, seed=5, n_critic=2)
both_ways = pytest.mark.parametrize("eager", [False, True])
EXTREMES = {"NaN": np.nan, "infinite": np.inf, "negative": -np.inf}
RING = data.ring()


@pytest.fixture(autouse=True)
def scored_once(monkeypatch):
    """Scores take most of the time of such short runs, and change none of their steps."""
    monkeypatch.setattr(training, "EVALUATIONS", 1)


def small(method, **options):
    return Config(method=method, **(SMALL | options))


def every(names, *values, short):
    """All combinations of values; the plain tests run one in ``short`` of them."""
    return pytest.mark.parametrize(names, [pytest.param(*case, marks=[pytest.mark.thorough] * bool(i % short))
                                           for i, case in enumerate(product(*values))])


def finite(arrays):
    return all(np.isfinite(value).all() for name, value in arrays.items() if name != "history")


def train(trainer):
    with np.errstate(all="ignore"):
        return list(trainer.train())


def diverges(trainer, step, quantity=".*"):
    """Train; it stops with Diverged at a step and stands in the state before it. What the diagnosis says."""
    with pytest.raises(Diverged, match=f"^training diverged at step {step}: the {quantity} is not finite$") as fault:
        train(trainer)
    assert fault.value.step == step == trainer.step + 1 and len(trainer.history) == trainer.step
    return diagnosis.first(trainer)


def tally(extreme):
    return "1 NaN" if extreme == "NaN" else "1 infinite"


def spoiled(config, value, step):
    """The ring, but for one number in the first batch of a step, which is known by what it would be."""
    drawn = []

    def recorded(rng, n):
        drawn.append(RING.draw(rng, n))
        return drawn[-1]

    twin = trainer_of(config, replace(RING, draw=recorded), eager=True)
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
    trainer = trainer_of(config, spoiled(config, EXTREMES[extreme], step=4), eager=eager)
    lines = diverges(trainer, 4)
    assert lines[0].startswith(f"{tally(extreme)} among 16 values of Trainer.draw, (8, 2), in "), lines
    assert trainer.history[-1][0] == 3


@every("method, eager, part, extreme", METHODS, [False, True], ["last", "generator"], EXTREMES, short=13)
def test_a_parameter_stops_the_run_in_the_next_step(method, eager, part, extreme):
    """Also one that no loss shows: a ReLU is 0 for ever behind -inf."""
    trainer = trainer_of(small(method), RING, eager=eager)
    part = trainer.players[-1] if part == "last" else part
    for row in trainer.train():
        trainer.stop = row["step"] == 5
    trainer.stop = False
    name, bias = [(name, t) for name, t, trained in getattr(trainer, part).named_tensors() if trained][1]
    spoilt = bias.data.copy()
    spoilt.reshape(-1)[2] = EXTREMES[extreme]
    bias.assign(spoilt)
    if trainer.clip and part == "critic" and extreme != "NaN":  # which brings infinity back to its limit
        trainer.clip.limit = np.inf
    lines = diverges(trainer, 6)
    assert lines == [f"{tally(extreme)} among {bias.size} values of the {part}'s {name}, {bias.shape}, before the step"]


@every("method, lr, eager", METHODS, [1e6, 1e30], [False, True], short=7)
def test_an_absurd_learning_rate_stops_the_run_before_anything_bad_is_kept(method, eager, lr):
    trainer = trainer_of(small(method, lr=lr), RING, eager=eager)
    try:
        train(trainer)
    except Diverged as fault:
        assert trainer.step == fault.step - 1 < 12 and finite(trainer.state_dict()[0])
        lines = diagnosis.first(trainer)
        assert "among" in lines[0] and len(lines) > 2, lines
        assert lines[1].startswith("at ") and all(line.startswith("  from ") and "nan" not in line for line in lines[2:])
    else:
        assert trainer.step == 12 and (lr == 1e6 or method == "mixture")  # so far from the data it has no gradient
        assert finite(trainer.state_dict()[0])


def test_what_a_call_was_for_is_named_in_an_autoencoder_too():
    trainer = trainer_of(small("vae", lr=1e30), RING)
    with pytest.raises(Diverged):
        train(trainer)
    assert ", in averaged, all gradients, encode, the encoder (Sequential), " in diagnosis.first(trainer)[0]


@both_ways
def test_a_gradient_that_is_not_finite_is_found_behind_a_finite_loss(eager, monkeypatch):
    """The derivative of the root is infinite at 0, and the root is not."""
    def loss(fake):
        return functional.mean(fake) + ops.sum(ops.power(fake - fake, 0.5))

    monkeypatch.setitem(METHODS, "wgan", replace(METHODS["wgan"], generator_loss=loss))
    lines = diverges(trainer_of(small("wgan"), RING, eager=eager), 1, "generator optimizer's square")
    assert lines[0].startswith("8 infinite among 8 values of pow, (8, 1), in generator step"), lines
    assert lines[0].endswith("the gradient of power, power"), lines


def test_a_replayed_run_comes_back_to_the_state_of_the_eager_one(monkeypatch):
    """From copies made now and then; here after every step, and never."""
    states = []
    config = small("wgan-gp")
    source = spoiled(config, np.nan, step=9)
    for eager, every in ((True, 0.0), (False, 0.0), (False, 1e9)):
        monkeypatch.setattr(training, "KEEP_EVERY", every)
        trainer = trainer_of(config, source, eager=eager)
        with pytest.raises(Diverged):
            train(trainer)
        arrays, values = trainer.state_dict()
        arrays["history"] = np.delete(arrays["history"], training.COLUMNS.index("seconds"), axis=1)
        states.append(({k: v.tobytes() for k, v in arrays.items()}, values["step"], values["rng"]))
    assert states[0] == states[1] == states[2] and states[0][1] == 8


# ------------------------------------------------------------------------------------------- the command line

ARGUMENTS = ["--width", "8", "--depth", "1", "--batch", "8", "--n-critic", "2", "--steps", "12", "--device", "cpu"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())
    return tmp_path / "run"


def ends_by_divergence(run, arguments, capsys):
    """Exit code 7, one line, the checkpoint kept, a dump that is explained; (the step, what the explanation says)."""
    assert main(["train", *arguments]) == 7
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("tinygan: training diverged at step ") and len(told) < 600
    assert f"(see tinygan explain {run.name}); the checkpoint of step 0 is kept in {run.name}; try --lr 0.0" in told
    assert json.loads((run / "run.json").read_text())["exit"] in told
    step = int(told.split()[5][:-1])
    for name, at in (("checkpoint.npz", 0), ("diverged.npz", step - 1)):
        header, arrays = checkpoint.load(run / name)
        assert header["values"]["step"] == at and finite(arrays)
    with open(run / "log.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(n) for n in range(1, step)]
    assert main(["explain", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"step {step}, done again from {run}/diverged.npz:" and f"; first are {lines[1]} (see" in told
    return step, lines[1:]


def test_a_learning_rate_that_diverges_is_told_and_explained(run, capsys):
    step, lines = ends_by_divergence(run, [*ARGUMENTS, "--lr", "1e6", "--out", "run"], capsys)
    assert step < 5 and " infinite among 33 values of " in lines[0] and "the critic optimizer, update" in lines[0], lines
    assert lines[1].startswith("at optim.py:") and " the critic optimizer's " in lines[2], lines


def test_bad_data_is_told_and_explained_and_forgotten_by_the_next_start(run, monkeypatch, capsys):
    config = Config(**SMALL | {"latent": 2, "seed": 0})
    bad = spoiled(config, np.nan, step=7)
    monkeypatch.setitem(data.TOYS, "ring", lambda: bad)
    step, lines = ends_by_divergence(run, [*ARGUMENTS, "--out", "run"], capsys)
    assert step == 7 and lines[0] == "1 NaN among 16 values of Trainer.draw, (8, 2), in critic step 1, real", lines
    monkeypatch.undo()
    monkeypatch.chdir(run.parent)
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())
    assert main(["train", "--resume", "run", "--device", "cpu"]) == 0
    assert sorted(p.name for p in run.iterdir()) == ["best.npz", "checkpoint.npz", "log.csv", "panel.png", "run.json",
                                                     "samples.npz"]
    assert main(["explain", "run"]) == 4 and "no training diverged here" in capsys.readouterr().err
    assert main(["explain", "run/checkpoint.npz"]) == 0 and "every value is finite" in capsys.readouterr().out


def test_a_bad_checkpoint_is_not_trained_and_not_touched(run, capsys):
    assert main(["train", *ARGUMENTS, "--out", "run"]) == 0
    header, arrays = checkpoint.load(run / "checkpoint.npz")
    arrays["generator/layers.0.bias"][3] = np.inf
    header.pop("sha256")
    checkpoint.save(run / "checkpoint.npz", header, arrays)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert main(["train", "--resume", "run", "--steps", "20", "--device", "cpu"]) == 7
    assert "diverged at step 12: the generator's layers.0.bias is not finite" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}
    assert main(["explain", "run/checkpoint.npz"]) == 0
    assert "1 infinite among 8 values of the generator's layers.0.bias, (8,), before the step" in capsys.readouterr().out
