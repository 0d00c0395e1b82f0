"""The peers: each runs the units of a workload, and imports its own library only."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from works import N_CRITIC, Convolutional, Work

SLOPE, EPS, MOMENTUM = 0.2, 1e-5, 0.1


class Tinygan:
    """tinygan as a user writes it: plain eager steps."""

    device = "cpu"

    def __init__(self, work: Work, dtype: Any = np.float32) -> None:
        import tinygan as tg
        from tinygan.app import process
        process.keep_memory()
        self.tg, self.work = tg, work
        nets = self.convolutional(dtype) if isinstance(work, Convolutional) else self.dense(dtype)
        for net, values in zip(nets, work.weights(dtype)):
            weighted = [layer for layer in net.layers if isinstance(layer, tg.layers.Affine)]
            for layer, weight, bias in zip(weighted, values[::2], values[1::2]):
                layer.weight.assign(self.convert(weight))
                layer.bias.assign(self.convert(bias))
        self.generator, self.critic = nets
        self.optimizers = [tg.optim.Adam(net.parameters(), lr=work.lr, betas=work.betas)
                           for net in nets]
        self.prepare()

    def dense(self, dtype: Any) -> list[Any]:
        """The networks of a ``Work``."""
        layers, work, nets = self.tg.layers, self.work, []
        rng = self.tg.backend.rng(0, self.device)
        for widths in (work.generator, work.critic):
            normalized = work.pictures and not nets  # the generator of images
            made: list[Any] = []
            for n, m in pairwise(widths):
                made.append(layers.Dense(n, m, rng=rng, dtype=dtype))
                if m != widths[-1]:
                    norm = layers.BatchNorm(m, dtype=dtype, device=self.device)
                    made += [norm] if normalized else []
                    made.append(layers.LeakyReLU(SLOPE) if work.pictures else layers.ReLU())
            nets.append(layers.Sequential(*made, *([layers.Tanh()] if normalized else [])))
        return nets

    def convolutional(self, dtype: Any) -> list[Any]:
        """The networks of a ``Convolutional`` work."""
        layers, rng = self.tg.layers, self.tg.backend.rng(0, self.device)
        how: dict[str, Any] = dict(kernel=4, stride=2, padding=1, rng=rng, dtype=dtype)
        generator = layers.Sequential(
            layers.Dense(100, 6272, rng=rng, dtype=dtype), layers.Reshape((128, 7, 7)),
            layers.BatchNorm(128, dtype=dtype, device=self.device), layers.ReLU(),
            layers.ConvTranspose2d(128, 64, **how),
            layers.BatchNorm(64, dtype=dtype, device=self.device), layers.ReLU(),
            layers.ConvTranspose2d(64, 1, **how), layers.Tanh())
        critic = layers.Sequential(
            layers.Conv2d(1, 64, **how), layers.LeakyReLU(SLOPE),
            layers.Conv2d(64, 128, **how), layers.LeakyReLU(SLOPE),
            layers.Flatten(), layers.Dense(6272, 1, rng=rng, dtype=dtype))
        return [generator, critic]

    def convert(self, inputs: Any) -> Any:
        """Arrays to the device, before the clock starts."""
        if isinstance(inputs, (list, tuple)):
            return type(inputs)(self.convert(i) for i in inputs)
        return self.tg.backend.to_device(inputs, self.device)

    def prepare(self) -> None:
        """A hook to wrap the step functions."""

    def critic_step(self, real: Any, z: Any, e: Any) -> Any:
        return self.descend(real, self.generator(z).data, e)

    def descend(self, real: Any, fake: Any, e: Any) -> Any:
        """One step of the critic."""
        tg, n = self.tg, len(real)
        scores = self.critic(np.concatenate([real, fake]))
        x = fake + e * (real - fake)
        excess = tg.losses.gradient_norms(self.critic, x, create_graph=True) - 1.0
        loss = tg.losses.wasserstein_critic(scores[:n], scores[n:])
        loss = loss + self.work.penalty * (excess * excess).mean()
        self.optimizers[1].step(tg.grad(loss, self.optimizers[1].parameters))
        return loss.data

    def iteration(self, critic: Any, z: Any) -> Any:
        """As in the training loop, one pass of the generator makes all the critic's fakes."""
        fakes = self.generator(np.concatenate([latent for _, latent, _ in critic])).data
        for i, (real, _, e) in enumerate(critic):
            self.descend(real, fakes[i * len(real):(i + 1) * len(real)], e)
        return self.generator_step(z)

    def generator_step(self, z: Any) -> Any:
        loss = self.tg.losses.wasserstein_generator(self.critic(self.generator(z)))
        self.optimizers[0].step(self.tg.grad(loss, self.optimizers[0].parameters))
        return loss.data

    def scores(self, x: Any, masks: Any) -> Any:
        if not masks:
            return self.critic(x)
        masks = iter(masks)
        for layer in self.critic.layers:
            x = layer(x)
            x = x * next(masks) if isinstance(layer, self.tg.layers.LeakyReLU) else x
        return x

    def step(self, real: Any, z: Any, z2: Any, masks: Any, masks2: Any) -> Any:
        tg, n = self.tg, len(real)
        fake = self.generator(z).data
        if real.ndim == 4:  # convolutions are large already: two smaller passes stay in the cache
            scores = self.critic(real), self.critic(fake)
        else:
            both = self.scores(np.concatenate([real, fake]), masks)
            scores = both[:n], both[n:]
        loss = tg.losses.nonsaturating_discriminator(*scores)
        self.optimizers[1].step(tg.grad(loss, self.optimizers[1].parameters))
        loss2 = tg.losses.nonsaturating_generator(self.scores(self.generator(z2), masks2))
        self.optimizers[0].step(tg.grad(loss2, self.optimizers[0].parameters))
        return loss.data + loss2.data

    def run(self, unit: str, inputs: Any) -> Any:
        """One unit; returns its last loss."""
        units = {"iteration": self.iteration, "critic": self.critic_step, "step": self.step}
        return units[unit](*inputs)


class Program(Tinygan):
    """The same steps, traced and replayed."""

    def prepare(self) -> None:
        """Programs take arrays: the lists among the arguments are spread, and gathered inside."""
        from tinygan.program import Program
        state = [self.generator, self.critic, *self.optimizers]
        step, iteration, hidden = self.step, self.iteration, len(self.work.critic) - 2

        def flat_step(real: Any, z: Any, z2: Any, *masks: Any) -> Any:
            return step(real, z, z2, masks[:hidden], masks[hidden:])

        def flat_iteration(z: Any, *arrays: Any) -> Any:
            return iteration([arrays[i:i + 3] for i in range(0, len(arrays), 3)], z)

        steps, iterations = Program(flat_step, state), Program(flat_iteration, state)
        self.critic_step = Program(self.critic_step, state)
        self.step = lambda real, z, z2, masks, masks2: steps(real, z, z2, *masks, *masks2)
        self.iteration = lambda critic, z: iterations(z, *(a for triple in critic for a in triple))


class Floor:
    """The matrix products alone, into existing memory: what no engine on this BLAS can beat."""

    def __init__(self, work: Work, dtype: Any = np.float32) -> None:
        self.work, self.calls = work, {}

    def run(self, unit: str, inputs: Any) -> Any:
        if unit == "iteration":
            for part in [*("critic",) * N_CRITIC, "generator"]:
                self.run(part, inputs)
            return
        if unit not in self.calls:
            self.calls[unit] = [
                tuple(np.full(shape, 0.01, np.float32) for shape in ((n, k), (k, m), (n, m)))
                for n, k, m in self.work.products(unit)]
        for a, b, out in self.calls[unit]:
            np.matmul(a, b, out=out)


class Torch:
    """PyTorch as its users write it."""

    fused, stacked = False, False

    def __init__(self, work: Work, dtype: Any = np.float32) -> None:
        import torch
        from torch import nn
        self.torch, self.work = torch, work
        nets = self.convolutional() if isinstance(work, Convolutional) else self.dense()
        for net, values in zip(nets, work.weights(dtype)):
            weighted = [layer for layer in net
                        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]
            for layer, weight, bias in zip(weighted, values[::2], values[1::2]):
                weight = weight.T if weight.ndim == 2 else weight.transpose(3, 2, 0, 1)
                layer.weight.data = torch.from_numpy(weight.copy())
                layer.bias.data = torch.from_numpy(bias)
        self.generator, self.critic = nets
        self.optimizers = [
            torch.optim.Adam(net.parameters(), lr=work.lr, betas=work.betas, fused=self.fused)
            for net in nets]

    def dense(self) -> list[Any]:
        nn, work, nets = self.torch.nn, self.work, []
        for widths in (work.generator, work.critic):
            normalized = work.pictures and not nets  # the generator of images
            made: list[Any] = []
            for n, m in pairwise(widths):
                made.append(nn.Linear(n, m))
                if m != widths[-1]:
                    made += [nn.BatchNorm1d(m)] if normalized else []
                    made.append(nn.LeakyReLU(SLOPE) if work.pictures else nn.ReLU())
            nets.append(nn.Sequential(*made, *([nn.Tanh()] if normalized else [])))
        return nets

    def convolutional(self) -> list[Any]:
        nn = self.torch.nn
        generator = nn.Sequential(
            nn.Linear(100, 6272), nn.Unflatten(1, (128, 7, 7)), nn.BatchNorm2d(128), nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())
        critic = nn.Sequential(
            nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(SLOPE),
            nn.Conv2d(64, 128, 4, 2, 1), nn.LeakyReLU(SLOPE),
            nn.Flatten(), nn.Linear(6272, 1))
        return [generator, critic]

    def both(self, real: Any, fake: Any, masks: Any = None) -> Any:
        n = len(real)
        if self.stacked:
            scores = self.scores(self.torch.cat([real, fake]), masks)
            return scores[:n], scores[n:]
        masks = masks or []
        return (self.scores(real, [mask[:n] for mask in masks]),
                self.scores(fake, [mask[n:] for mask in masks]))

    def scores(self, x: Any, masks: Any = None) -> Any:
        if not masks:
            return self.critic(x)
        masks = iter(masks)
        for layer in self.critic:
            x = layer(x)
            x = x * next(masks) if isinstance(layer, self.torch.nn.LeakyReLU) else x
        return x

    def descend(self, player: int, loss: Any) -> None:
        self.optimizers[player].zero_grad()
        loss.backward()
        self.optimizers[player].step()

    def critic_step(self, real: Any, z: Any, e: Any) -> Any:
        torch = self.torch
        with torch.no_grad():
            fake = self.generator(z)
        d_real, d_fake = self.both(real, fake)
        x = (fake + e * (real - fake)).requires_grad_(True)
        (g,) = torch.autograd.grad(self.critic(x).sum(), x, create_graph=True)
        penalty = ((g.norm(2, dim=1) - 1) ** 2).mean()
        loss = d_fake.mean() - d_real.mean() + self.work.penalty * penalty
        self.descend(1, loss)
        return loss.detach()

    def iteration(self, critic: Any, z: Any) -> Any:
        for arguments in critic:
            self.critic_step(*arguments)
        return self.generator_step(z)

    def generator_step(self, z: Any) -> Any:
        for p in self.critic.parameters():  # the critic's own gradients are not needed here
            p.requires_grad_(False)
        loss = -self.critic(self.generator(z)).mean()
        self.descend(0, loss)
        for p in self.critic.parameters():
            p.requires_grad_(True)
        return loss.detach()

    def step(self, real: Any, z: Any, z2: Any, masks: Any, masks2: Any) -> Any:
        softplus = self.torch.nn.functional.softplus
        with self.torch.no_grad():
            fake = self.generator(z)
        d_real, d_fake = self.both(real, fake, masks)
        loss = softplus(-d_real).mean() + softplus(d_fake).mean()
        self.descend(1, loss)
        for p in self.critic.parameters():
            p.requires_grad_(False)
        loss2 = softplus(-self.scores(self.generator(z2), masks2)).mean()
        self.descend(0, loss2)
        for p in self.critic.parameters():
            p.requires_grad_(True)
        return (loss + loss2).detach()

    def convert(self, inputs: Any) -> Any:
        """Arrays to tensors, before the clock starts."""
        if isinstance(inputs, (list, tuple)):
            return type(inputs)(self.convert(i) for i in inputs)
        return self.torch.from_numpy(inputs)

    run = Tinygan.run


class TunedTorch(Torch):
    """PyTorch at its best without a compiler: real and fake in one pass, fused Adam."""

    fused, stacked = True, True


class Functional:
    """Steps as pure functions of the parameters, for compilers; ``F`` holds the library's own."""

    F: Any
    run, iteration = Tinygan.run, Torch.iteration

    def setup(self, work: Work, dtype: Any) -> None:
        self.work = work
        self.params = [[self.convert(a) for a in net] for net in work.weights(dtype)]
        norms = work.generator[1:-1] if work.pictures else ()
        ones, zeros = ([self.convert(np.full(n, value, dtype)) for n in norms] for value in (1, 0))
        self.running = [(o * 0, o * 1) for o in ones]
        self.params[0] += [a for pair in zip(ones, zeros) for a in pair]  # gamma, beta
        self.adam = [([p * 0 for p in net], [p * 0 for p in net], 0) for net in self.params]

    def generate(self, params: Any, z: Any, running: Any) -> tuple[Any, Any]:
        F, layers = self.F, len(self.work.generator) - 1
        x, kept = z, []
        for i in range(layers):
            x = F.matmul(x, params[2 * i]) + params[2 * i + 1]
            if i == layers - 1:
                break
            if self.work.pictures:
                m = F.mean(x, 0)
                c = x - m
                v = F.mean(c * c, 0)
                gamma, beta = params[2 * layers + 2 * i:][:2]
                x = c / F.sqrt(v + EPS) * gamma + beta
                n = len(z)
                mean, variance = running[i]
                kept.append((mean + MOMENTUM * (m - mean),
                             variance + MOMENTUM * (v * (n / (n - 1)) - variance)))
                x = F.leaky(x)
            else:
                x = F.relu(x)
        return (F.tanh(x) if self.work.pictures else x), kept

    def scores(self, params: Any, x: Any, masks: Any = ()) -> Any:
        layers = len(self.work.critic) - 1
        for i in range(layers):
            x = self.F.matmul(x, params[2 * i]) + params[2 * i + 1]
            if i < layers - 1:
                x = self.F.leaky(x) if self.work.pictures else self.F.relu(x)
                x = x * masks[i] if len(masks) else x
        return x

    def update(self, params: Any, adam: Any, grads: Any, t: Any) -> Any:
        b1, b2 = self.work.betas
        m = [b1 * a + (1 - b1) * g for a, g in zip(adam[0], grads)]
        v = [b2 * a + (1 - b2) * g * g for a, g in zip(adam[1], grads)]
        new = [p - self.work.lr / (1 - b1 ** t) * a / (self.F.sqrt(b / (1 - b2 ** t)) + 1e-8)
               for p, a, b in zip(params, m, v)]
        return new, (m, v)

    def pure_critic(self, g: Any, d: Any, adam: Any, running: Any, t: Any,
                    real: Any, z: Any, e: Any) -> Any:
        fake, running = self.generate(g, z, running)
        n = len(real)

        def loss(d: Any) -> Any:
            s = self.scores(d, self.F.concatenate([real, fake]))
            gx = self.F.grad(lambda x: self.scores(d, x).sum())(fake + e * (real - fake))
            excess = self.F.sqrt((gx * gx).sum(1)) - 1
            return s[n:].mean() - s[:n].mean() + self.work.penalty * (excess * excess).mean()

        value, grads = self.F.value_and_grad(loss)(d)
        return value, running, *self.update(d, adam, grads, t)

    def pure_generator(self, g: Any, d: Any, adam: Any, running: Any, t: Any,
                       z: Any, masks: Any) -> Any:
        def loss(g: Any) -> Any:
            fake, kept = self.generate(g, z, running)
            s = self.scores(d, fake, masks)
            return (-s.mean() if self.work.penalty else self.F.softplus(-s).mean()), kept

        (value, kept), grads = self.F.value_and_grad_aux(loss)(g)
        return value, kept, *self.update(g, adam, grads, t)

    def pure_discriminator(self, g: Any, d: Any, adam: Any, running: Any, t: Any,
                           real: Any, z: Any, masks: Any) -> Any:
        fake, running = self.generate(g, z, running)
        n, softplus = len(real), self.F.softplus

        def loss(d: Any) -> Any:
            s = self.scores(d, self.F.concatenate([real, fake]), masks)
            return softplus(-s[:n]).mean() + softplus(s[n:]).mean()

        value, grads = self.F.value_and_grad(loss)(d)
        return value, running, *self.update(d, adam, grads, t)

    def call(self, function: Any, player: int, *inputs: Any) -> Any:
        m, v, steps = self.adam[player]
        value, self.running, self.params[player], (m, v) = function(
            *self.params, (m, v), self.running, self.count(steps + 1), *inputs)
        self.adam[player] = m, v, steps + 1
        return value

    def critic_step(self, *inputs: Any) -> Any:
        return self.call(self.compiled_critic, 1, *inputs)

    def generator_step(self, z: Any, masks: Any = ()) -> Any:
        return self.call(self.compiled_generator, 0, z, masks)

    def step(self, real: Any, z: Any, z2: Any, masks: Any, masks2: Any) -> Any:
        loss = self.call(self.compiled_discriminator, 1, real, z, masks)
        return loss + self.generator_step(z2, masks2)


class Jax(Functional):
    """JAX, jit-compiled."""

    def __init__(self, work: Work, dtype: Any = np.float32) -> None:
        import jax
        jnp = jax.numpy
        self.jax, self.convert = jax, lambda x: jax.tree.map(jnp.asarray, x)
        self.F = SimpleNamespace(
            matmul=jnp.matmul, mean=jnp.mean, sqrt=jnp.sqrt, concatenate=jnp.concatenate,
            tanh=jnp.tanh, relu=jax.nn.relu, leaky=lambda x: jnp.maximum(x, SLOPE * x),
            softplus=jax.nn.softplus, grad=jax.grad, value_and_grad=jax.value_and_grad,
            value_and_grad_aux=lambda f: jax.value_and_grad(f, has_aux=True))
        self.setup(work, dtype)
        self.count = np.float32
        self.compiled_critic = jax.jit(self.pure_critic, donate_argnums=(1, 2, 3))
        self.compiled_generator = jax.jit(self.pure_generator, donate_argnums=(0, 2, 3))
        self.compiled_discriminator = jax.jit(self.pure_discriminator, donate_argnums=(1, 2, 3))

    def wait(self) -> None:
        self.jax.block_until_ready((self.params, self.adam, self.running))


class TorchCompile(Functional):
    """torch.compile over ``torch.func``: the form in which it takes double backpropagation."""

    convert = Torch.convert

    def __init__(self, work: Work, dtype: Any = np.float32) -> None:
        import torch
        self.torch = torch
        func = torch.func

        def swapped(has_aux: bool) -> Any:
            def wrap(f: Any) -> Any:
                g = func.grad_and_value(f, has_aux=has_aux)
                return lambda p: g(p)[::-1]
            return wrap

        self.F = SimpleNamespace(
            matmul=torch.matmul, mean=torch.mean, sqrt=torch.sqrt, concatenate=torch.cat,
            tanh=torch.tanh, relu=torch.relu,
            leaky=lambda x: torch.nn.functional.leaky_relu(x, SLOPE),
            softplus=torch.nn.functional.softplus, grad=func.grad,
            value_and_grad=swapped(False), value_and_grad_aux=swapped(True))
        self.setup(work, dtype)
        self.count = lambda t: torch.tensor(float(t))
        self.compiled_critic = torch.compile(self.pure_critic, dynamic=False)
        self.compiled_generator = torch.compile(self.pure_generator, dynamic=False)
        self.compiled_discriminator = torch.compile(self.pure_discriminator, dynamic=False)


PEERS = {"tinygan eager": Tinygan, "tinygan program": Program, "floor": Floor,
         "PyTorch eager": Torch, "PyTorch tuned": TunedTorch, "torch.compile": TorchCompile,
         "JAX jit": Jax}
NEEDS = {"PyTorch eager": "torch", "PyTorch tuned": "torch", "torch.compile": "torch",
         "JAX jit": "jax"}
