"""Each demo runs as its header says, for a few steps, and tells the truth about what it can check itself."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import tinygan as tg
from tinygan import backend
from tinygan.layers import Dense, Sequential, Tanh
from tinygan.testing import gradcheck

ROOT = Path(__file__).resolve().parent.parent
DEMOS = {"wgan_gp_ring": ["--steps", "3"], "gan_ring": ["--steps", "3", "--head-start", "4"],
         "double_backprop": ["--steps", "3"], "glyphs_wgan_gp": ["--steps", "2"], "dcgan_glyphs": ["--steps", "2"],
         "batch_size": ["--seconds", "0.05"], "dirac_gan": ["--steps", "200"],
         "vae_glyphs": ["--epochs", "1"], "mode_collapse": ["--steps", "2", "--seeds", "1"],
         "vanishing_gradients": ["--steps", "25", "--stages", "0"],
         "weight_clipping": ["--steps", "40", "--deep-steps", "3"]}
needs_gpu = pytest.mark.skipif(backend.gpu_count()[0] == 0, reason=backend.gpu_count()[1] or "no GPU")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Glyphs are drawn once for all runs, and not into the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def run(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The demo's own run line, with this Python, in a folder of its own."""
    text = (ROOT / "demos" / f"{name}.py").read_text()
    (line,) = re.findall(rf"^    (\.venv/bin/python demos/{name}\.py.*)$", text, re.MULTILINE)
    words = shlex.split(line)
    command = [sys.executable, str(ROOT / words[1]), *words[2:], *DEMOS[name], *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
                          timeout=300)


def check(name: str, folder: Path, *arguments: str) -> str:
    """Run it and look at its picture; returns what it printed."""
    done = run(name, folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (picture,) = re.findall(r"^picture  (.+)$", done.stdout, re.MULTILINE)
    assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    return done.stdout


def test_every_demo_is_tested():
    assert {path.stem for path in (ROOT / "demos").glob("*.py")} == set(DEMOS)


def numbers(printed: str, start: str) -> list[float]:
    """Those at the end of the line that starts so."""
    (line,) = re.findall(rf"^{re.escape(start)} +(.+)$", printed, re.MULTILINE)
    return [float(number) for number in line.split()]


def dirac_gan(printed):
    """The factors measured are those of the eigenvalues, up to part of a turn: 1 % in 100 steps. What circles stays away."""
    for name in ("GAN, minimax", "WGAN, clipped at 0.5", "GAN + instance noise, sd 1", "GAN + R1, gamma 1",
                 "GAN + zero-centred, weight 0.1"):
        distance, factor, predicted = numbers(printed, name)
        assert abs(factor - predicted) < 0.01 and (distance < 0.15) == ("+" in name)
    assert numbers(printed, "WGAN-GP, weight 0.5")[0] > 1


def vae_glyphs(printed):
    """The bound of held-out images rises; the KL divergence lies within five standard errors of its estimate."""
    for latent in ("2", "16"):
        first, training, held_out, best, epoch, kl, sampled, error, seconds = numbers(printed, latent)
        assert held_out > first + 300 and 0 < error < 0.1 and abs(kl - sampled) < 5 * error


def vanishing_gradients(printed):
    """An untrained generator is far from the data: the discriminator wins within 25 steps, the critic's slope stays."""
    rows = [[float(number) for number in line.split()] for line in re.findall(r"^ +0 +[1-9].+$", printed, re.MULTILINE)]
    minimax, nonsaturating, wasserstein = (rows[-1][k] / rows[0][k] for k in (2, 3, 4))
    assert rows[0][1] == 1 and rows[-1][1] == 25
    assert minimax < 0.3 and nonsaturating > 1 and wasserstein > 1
    assert rows[-1][6] <= 0.694 < 10 < rows[-1][7]  # Jensen-Shannon is stuck at log 2, the distance is far beyond


def weight_clipping(printed):
    """The weights go to the limit of the clipping, and gradients to 0 in a deep critic; with the penalty they do not."""
    for data in ("ring", "grid", "swissroll"):
        clipped, penalty = (numbers(printed.replace("%", ""), f"{data}, {way}")[1] for way in ("clipped", "penalty"))
        assert clipped > 20 > 5 > penalty
    factors = [numbers(printed, f"12 layers, {way}")[-1] for way in ("clip 0.01", "clip 0.001", "penalty")]
    assert factors[0] < 0.1 and factors[1] < 0.01 and 0.5 < factors[2] < 2


CLAIMS = {"dirac_gan": dirac_gan, "vae_glyphs": vae_glyphs,  # what a demo's numbers must show even at this scale
          "vanishing_gradients": vanishing_gradients, "weight_clipping": weight_clipping}


@pytest.fixture(scope="module")
def demo_runs(request, tmp_path_factory):
    """name -> the folder of the demo and a future of what it prints; two run at a time, each a process of its own."""
    wanted = [item for item in request.session.items if "demo_runs" in getattr(item, "fixturenames", ())]
    with ThreadPoolExecutor(2) as pool:
        found = {}
        for name in (item.callspec.params["name"] for item in wanted):
            folder = tmp_path_factory.mktemp(name)
            (folder / "runs").mkdir()
            (folder / f"runs/{name}.png").write_text("mine")
            found[name] = folder, pool.submit(check, name, folder, "--device", "cpu", "--seed", "1")
        yield found


@pytest.mark.parametrize("name", DEMOS)
def test_demo_runs_on_the_cpu_and_overwrites_no_picture(name, demo_runs):
    folder, printed = demo_runs[name][0], demo_runs[name][1].result()
    assert "device cpu" in printed and "seed 1" in printed
    assert f"picture  runs/{name}-2.png" in printed and (folder / f"runs/{name}.png").read_text() == "mine"
    assert [p.name for p in folder.iterdir()] == ["runs"]
    CLAIMS.get(name, len)(printed)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", DEMOS)
def test_demo_runs_on_the_gpu(name, tmp_path):
    assert "device cuda:0" in check(name, tmp_path, "--device", "cuda", "--seed", "1")


@pytest.mark.parametrize("seed", ["0", *(pytest.param(seed, marks=pytest.mark.thorough) for seed in "12")])
def test_the_three_derivatives_agree_to_the_printed_precision(seed, tmp_path):
    printed = check("double_backprop", tmp_path, "--device", "cpu", "--seed", seed)
    rows = re.findall(r"^(?:penalty P|dP/d\S+(?: \d\])?) +(\S+) +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert len(rows) == 5
    for by_hand, by_grad, by_differences in rows:
        assert by_hand == by_grad == by_differences


def test_same_seed_same_numbers(tmp_path):
    """All but the times are repeated."""
    first, second = (re.sub(r"in \d+ s|-\d\.png", "", check("gan_ring", tmp_path, "--device", "cpu")) for _ in range(2))
    assert first.replace(".png", "") == second.replace(".png", "")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.thorough] * bool(i % 4))
                                  for i, name in enumerate(DEMOS)])  # they parse their arguments in the same lines
def test_unknown_device_is_one_line(name, tmp_path):
    done = run(name, tmp_path, "--device", "gpu7")
    assert done.returncode == 2
    assert "unknown device 'gpu7'" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def loaded(name: str):
    """The demo as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "demos" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def players(rng):
    """A generator and a critic in float64, Adam of the critic two steps on, data and latents."""
    generator, critic = (Sequential(Dense(a, 4, rng=rng, dtype=np.float64), Tanh(), Dense(4, b, rng=rng, dtype=np.float64))
                         for a, b in ((3, 2), (2, 1)))
    optimizer = tg.optim.Adam(critic.parameters(), 0.01, betas=(0.5, 0.999))
    real, z = rng.standard_normal((5, 2)), rng.standard_normal((5, 3))
    for _ in range(2):
        optimizer.step(tg.grad(critic_loss(critic, real, generator(z).data), critic.parameters()))
    return generator, critic, optimizer, real, z


def critic_loss(critic, real, fake):
    return tg.losses.nonsaturating_discriminator(critic(real), critic(fake))


def test_an_unrolled_critic_is_where_its_optimizer_would_lead_it():
    demo, (generator, critic, optimizer, real, z) = loaded("mode_collapse"), players(np.random.default_rng(0))
    fake, before = generator(z).data, [p.data.copy() for p in critic.parameters()]
    ahead = demo.unrolled(critic, lambda c: critic_loss(c, real, fake), 4, optimizer, 0.01)
    assert all((p.data == b).all() for p, b in zip(critic.parameters(), before)) and optimizer.steps == 2
    for _ in range(4):
        optimizer.step(tg.grad(critic_loss(critic, real, fake), critic.parameters()))
    for there, here in zip(ahead.parameters(), critic.parameters()):
        assert np.allclose(there.data, here.data, rtol=1e-9, atol=1e-12)


def test_the_unrolled_gradient_is_that_of_the_unrolled_loss():
    """Of both players' weights, against differences; without steps ahead it is the ordinary gradient."""
    demo, (generator, critic, optimizer, real, z) = loaded("mode_collapse"), players(np.random.default_rng(1))
    inputs = generator.parameters()

    def loss(k):
        def function(*tensors):
            g, c = (demo.with_parameters(network, part) for network, part in
                    ((generator, tensors[:len(inputs)]), (critic, tensors[len(inputs):])))
            return demo.generator_loss(c, real, g(z), k, optimizer, 0.05)
        return function

    for k in (1, 4):
        gradcheck(loss(k), [p.data for p in inputs + critic.parameters()])
    ordinary = tg.grad(tg.losses.nonsaturating_generator(critic(generator(z))), inputs)
    ahead, none = (tg.grad(demo.generator_loss(critic, real, generator(z), k, optimizer, 0.05), inputs) for k in (4, 0))
    assert all((a == b).all() for a, b in zip(none, ordinary))
    assert not any(np.allclose(a, b, rtol=0.01) for a, b in zip(ahead, ordinary))


def test_a_gan_collapses_and_an_unrolled_critic_keeps_it_from_that():
    """In the second half of a short run; even shares of the modes have 0, one mode of eight has log 8 = 2.08."""
    demo, data = loaded("mode_collapse"), tg.data.ring()
    with threadpool_limits(1):  # such small products are slower on two
        assert demo.late(demo.train("GAN", data, 500, 0, "cpu")[1]) > 0.5
        assert demo.late(demo.train("unrolled 5 steps, rate 1e-3", data, 100, 0, "cpu")[1]) < 0.2
