"""Each demo runs as its header says, for a few steps; some of their claims hold even then."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import tinygan as tg
from tinygan.app import demo, process
from tinygan.layers import Dense, Sequential, Tanh
from tinygan.testing import gradcheck

ROOT = Path(__file__).resolve().parent.parent
DEMOS = {  # name: the options of a short run
    "wgan_gp_ring": ["--steps", "3"],
    "gan_ring": ["--steps", "3", "--head-start", "4"],
    "double_backprop": ["--steps", "3"],
    "glyphs_wgan_gp": ["--steps", "2"],
    "dcgan_glyphs": ["--steps", "2"],
    "batch_size": ["--seconds", "0.05"],
    "dirac_gan": ["--steps", "200"],
    "failures": ["oscillation", "--seeds", "1"],
    "vae_glyphs": ["--epochs", "1"],
    "conditional_glyphs": ["--steps", "2"],
    "mode_collapse": ["--steps", "2", "--seeds", "1"],
    "vanishing_gradients": ["--steps", "25", "--stages", "0"],
    "weight_clipping": ["--steps", "40", "--deep-steps", "3"]}


def command(name: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command in the demo's header, with this Python."""
    text = (ROOT / f"demos/{name}.py").read_text()
    (line,) = re.findall(rf"^    (\.venv/bin/python demos/{name}\.py.*)$", text, re.MULTILINE)
    words = shlex.split(line)
    return [sys.executable, str(ROOT / words[1]), *words[2:], *DEMOS[name], *arguments], {}


def printed_by(done: subprocess.CompletedProcess[str], folder: Path) -> str:
    """What a demo printed, after a check that it wrote a picture."""
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (picture,) = re.findall(r"^picture  (.+)$", done.stdout, re.MULTILINE)
    assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    return done.stdout


def test_every_demo_is_tested():
    assert {path.stem for path in (ROOT / "demos").glob("*.py")} == set(DEMOS)


def numbers(printed: str, start: str) -> list[float]:
    """The numbers that follow ``start`` on its line."""
    (line,) = re.findall(rf"^{re.escape(start)} +(.+)$", printed, re.MULTILINE)
    return [float(number) for number in line.split()]


def double_backprop(printed):
    """The three derivatives agree to the printed precision."""
    name = r"(?:penalty P|dP/d\S+(?: \d\])?)"
    rows = re.findall(rf"^{name} +(\S+) +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert len(rows) == 5
    for by_hand, by_grad, by_differences in rows:
        assert by_hand == by_grad == by_differences


def dirac_gan(printed):
    """The measured factors are those predicted; the rest circle away from the equilibrium.

    (To 1 %: the second half of 200 steps is no whole number of turns.)
    """
    for name in ("GAN, minimax", "WGAN, clipped at 0.5", "GAN + instance noise, sd 1",
                 "GAN + R1, gamma 1", "GAN + zero-centred, weight 0.1"):
        distance, factor, predicted = numbers(printed, name)
        assert abs(factor - predicted) < 0.01 and (distance < 0.15) == ("+" in name)
    assert numbers(printed, "WGAN-GP, weight 0.5")[0] > 1


def vae_glyphs(printed):
    """The bound of held-out images rises; the KL divergence is within five standard errors."""
    for latent in ("2", "16"):
        first, _, held_out, _, _, kl, sampled, error, _ = numbers(printed, latent)
        assert held_out > first + 300 and 0 < error < 0.1 and abs(kl - sampled) < 5 * error


def vanishing_gradients(printed):
    """Far from the data the discriminator wins within 25 steps; the critic keeps its slope."""
    lines = re.findall(r"^ +0 +[1-9].+$", printed, re.MULTILINE)
    rows = [[float(number) for number in line.split()] for line in lines]
    minimax, nonsaturating, wasserstein = (rows[-1][k] / rows[0][k] for k in (2, 3, 4))
    assert rows[0][1] == 1 and rows[-1][1] == 25
    assert minimax < 0.3 and nonsaturating > 1 and wasserstein > 1
    divergence, distance = rows[-1][6:8]
    assert divergence <= 0.694 and distance > 10  # at most log 2; without a limit


def weight_clipping(printed):
    """Clipped weights go to the limit, gradients in depth to 0; neither with the penalty."""
    plain = printed.replace("%", "")
    for data in ("ring", "grid", "swissroll"):
        _, clipped = numbers(plain, f"{data}, clipped")
        _, penalized = numbers(plain, f"{data}, penalty")
        assert clipped > 20 and penalized < 5
    assert numbers(printed, "12 layers, clip 0.01")[-1] < 0.1
    assert numbers(printed, "12 layers, clip 0.001")[-1] < 0.01
    assert 0.5 < numbers(printed, "12 layers, penalty")[-1] < 2


CLAIMS = {  # what a demo's numbers must show even at this scale
    "double_backprop": double_backprop, "dirac_gan": dirac_gan, "vae_glyphs": vae_glyphs,
    "vanishing_gradients": vanishing_gradients, "weight_clipping": weight_clipping}


PICTURE = {"failures": "failures-oscillation"}
SLOW = ["batch_size", "conditional_glyphs", "dcgan_glyphs", "dirac_gan", "glyphs_wgan_gp",
        "mode_collapse", "vae_glyphs", "vanishing_gradients", "weight_clipping"]  # over 2 s each


def beside_a_picture(folder, name):
    (folder / "runs").mkdir()
    (folder / f"runs/{PICTURE.get(name, name)}.png").write_text("mine")
    return [command(name, "--device", "cpu", "--seed", "1")]


@pytest.mark.processes(commands=beside_a_picture)
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.thorough] if name in SLOW else []) for name in DEMOS])
def test_demo_runs_on_the_cpu_and_overwrites_no_picture(name, ran):
    folder, (done,) = ran
    printed = printed_by(done, folder)
    assert "device cpu" in printed and "seed 1" in printed
    picture = PICTURE.get(name, name)
    assert f"picture  runs/{picture}-2.png" in printed
    assert (folder / f"runs/{picture}.png").read_text() == "mine"
    assert [p.name for p in folder.iterdir()] == ["runs"]
    CLAIMS.get(name, len)(printed)


@pytest.mark.gpu
@pytest.mark.processes(
    commands=lambda folder, name: [command(name, "--device", "cuda", "--seed", "1")])
@pytest.mark.parametrize("name", DEMOS)
def test_demo_runs_on_the_gpu(name, ran):
    folder, (done,) = ran
    assert "device cuda:0" in printed_by(done, folder)


@pytest.mark.thorough
@pytest.mark.processes(
    commands=lambda folder, seed: [command("double_backprop", "--device", "cpu", "--seed", seed)])
@pytest.mark.parametrize("seed", ["0", "2"])
def test_the_three_derivatives_agree_whatever_the_seed(seed, ran):
    folder, (done,) = ran
    double_backprop(printed_by(done, folder))


@pytest.mark.processes(commands=lambda folder: 2 * [command("gan_ring", "--device", "cpu")])
def test_same_seed_same_numbers(ran):
    """All but the time and the picture's name."""
    folder, results = ran
    first, second = (printed_by(done, folder) for done in results)
    assert first.split("done in")[0] == second.split("done in")[0] != ""


@pytest.mark.processes(commands=lambda folder: [command("wgan_gp_ring", "--device", "gpu7")])
def test_unknown_device_is_one_line_and_leaves_no_folder(ran):
    folder, (done,) = ran
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("choose cpu, cuda, cuda:N or auto")
    assert "unknown device 'gpu7'" in done.stderr and "Traceback" not in done.stderr
    assert not list(folder.iterdir())


def beside_a_file(folder):
    (folder / "file").touch()
    return [command("wgan_gp_ring", "--device", "cpu", "--out", "file/picture.png")]


@pytest.mark.processes(commands=beside_a_file)
def test_a_folder_that_cannot_be_made_is_one_line(ran):
    _, (done,) = ran
    assert done.returncode == 2
    assert "file" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def options(monkeypatch, *arguments, **own):
    monkeypatch.setattr(sys, "argv", ["demo", "--device", "cpu", *arguments])
    monkeypatch.setattr(process, "tune_process", lambda width: f"width {width}")
    return demo.options("First line.\nMore.", "Name", 64, "here.png", **own)


def test_a_demos_own_options_have_defaults_and_types(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    own = {"steps": (3, "steps"), "deep_steps": (4.5, "more"), "stages": ([0, 20], "several")}
    chosen = options(monkeypatch, **own)
    assert (chosen.steps, chosen.deep_steps, chosen.stages, chosen.seed) == (3, 4.5, [0, 20], 0)
    assert chosen.title == "Name, steps 3, deep steps 4.5, stages [0, 20], seed 0"
    assert capsys.readouterr().out == f"{chosen.title}, device cpu, width 64\n"
    arguments = ["--steps", "7", "--deep-steps", "1", "--stages", "5", "6", "7", "--seed", "2"]
    chosen = options(monkeypatch, *arguments, **own)
    assert (chosen.steps, chosen.deep_steps, chosen.stages, chosen.seed) == (7, 1.0, [5, 6, 7], 2)


def test_the_help_shows_first_line_options_and_defaults(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        options(monkeypatch, "--help", head_start=(30, "steps alone"))
    printed = capsys.readouterr().out
    for text in ("First line.", "--head-start", "steps alone (default: 30)", "(default: here.png)"):
        assert text in printed


@pytest.mark.parametrize("name", DEMOS)
def test_a_main_has_at_most_15_lines(name):
    tree = ast.parse((ROOT / f"demos/{name}.py").read_text())
    (main,) = (node for node in tree.body if getattr(node, "name", "") == "main")
    assert main.end_lineno - main.lineno + 1 <= 15


def test_no_two_demos_share_six_lines_in_a_row():
    """Imports, and blank lines, are not counted."""
    owners = defaultdict(set)
    for name in DEMOS:
        lines = (ROOT / f"demos/{name}.py").read_text().splitlines()
        lines = [line for line in lines if line.strip() and not line.startswith(("import", "from"))]
        for start in range(len(lines) - 5):
            owners["\n".join(lines[start:start + 6])].add(name)
    assert not [block for block, names in owners.items() if len(names) > 1]


def loaded(name: str):
    """The demo as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "demos" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def players(rng):
    """A generator and a critic in float64, the critic's Adam after two steps, data, latents."""
    generator, critic = (
        Sequential(Dense(d_in, 4, rng=rng, dtype=np.float64), Tanh(),
                   Dense(4, d_out, rng=rng, dtype=np.float64)) for d_in, d_out in ((3, 2), (2, 1)))
    optimizer = tg.optim.Adam(critic.parameters(), 0.01, betas=(0.5, 0.999))
    real, z = rng.standard_normal((5, 2)), rng.standard_normal((5, 3))
    for _ in range(2):
        optimizer.step(tg.grad(critic_loss(critic, real, generator(z).data), critic.parameters()))
    return generator, critic, optimizer, real, z


def critic_loss(critic, real, fake):
    return tg.losses.nonsaturating_discriminator(critic(real), critic(fake))


def test_an_unrolled_critic_is_where_its_optimizer_would_lead_it():
    collapse = loaded("mode_collapse")
    generator, critic, optimizer, real, z = players(np.random.default_rng(0))
    fake, before = generator(z).data, [p.data.copy() for p in critic.parameters()]
    ahead = collapse.unrolled(critic, lambda c: critic_loss(c, real, fake), 4, optimizer, 0.01)
    assert all((p.data == b).all() for p, b in zip(critic.parameters(), before))
    assert optimizer.steps == 2
    for _ in range(4):
        optimizer.step(tg.grad(critic_loss(critic, real, fake), critic.parameters()))
    for there, here in zip(ahead.parameters(), critic.parameters()):
        assert np.allclose(there.data, here.data, rtol=1e-9, atol=1e-12)


def test_the_unrolled_gradient_is_that_of_the_unrolled_loss():
    """Of both players' weights, by finite differences; with no steps ahead it is the ordinary one.
    """
    collapse = loaded("mode_collapse")
    generator, critic, optimizer, real, z = players(np.random.default_rng(1))
    inputs = generator.parameters()

    def loss(k):
        def function(*tensors):
            g = collapse.with_parameters(generator, tensors[:len(inputs)])
            c = collapse.with_parameters(critic, tensors[len(inputs):])
            return collapse.generator_loss(c, real, g(z), k, optimizer, 0.05)
        return function

    for k in (1, 4):
        gradcheck(loss(k), [p.data for p in inputs + critic.parameters()])
    ordinary = tg.grad(tg.losses.nonsaturating_generator(critic(generator(z))), inputs)
    ahead, none = (tg.grad(
        collapse.generator_loss(critic, real, generator(z), k, optimizer, 0.05), inputs)
        for k in (4, 0))
    assert all((a == b).all() for a, b in zip(none, ordinary))
    assert not any(np.allclose(a, b, rtol=0.01) for a, b in zip(ahead, ordinary))


@pytest.mark.thorough
def test_a_gan_collapses_and_an_unrolled_critic_keeps_it_from_that():
    """Reverse KL in the second half of a short run: 0 for equal shares, log 8 for one mode."""
    collapse, data = loaded("mode_collapse"), tg.data.ring()
    with threadpool_limits(1):  # such small products are slower on two
        _, collapsed = collapse.train("GAN", data, 500, 0, "cpu")
        _, spread_out = collapse.train("unrolled 5 steps, rate 1e-3", data, 100, 0, "cpu")
    assert collapse.late(collapsed) > 0.5
    assert collapse.late(spread_out) < 0.2
