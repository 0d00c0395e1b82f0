"""The peers on a GPU, all in float32 throughout: no TF32, which CuPy does not use either."""

from __future__ import annotations

from functools import partial
from typing import Any

import peers

GPU = "cuda:0"


def tinygan_peer(kind: str, work: Any) -> Any:
    """tinygan on the GPU."""
    import cupy
    peer = type("Peer", (peers.PEERS[kind],), {"device": GPU})(work)
    peer.wait = cupy.cuda.Device(0).synchronize
    return peer


def each(function: Any, inputs: Any) -> Any:
    """The function of every array in lists and tuples."""
    if isinstance(inputs, (list, tuple)):
        return type(inputs)([each(function, part) for part in inputs])
    return function(inputs)


def torch_peer(kind: str, work: Any) -> Any:
    """PyTorch on the GPU, in float32 throughout, as CuPy computes."""
    import torch
    torch.backends.cudnn.allow_tf32 = False
    convert = partial(each, lambda array: torch.from_numpy(array).cuda())
    pure = kind == "torch.compile" and work.name != "W5"  # which needs no double backpropagation
    if pure:
        peer = type("Peer", (peers.TorchCompile,), {"convert": staticmethod(convert)})(work)
        peer.count = lambda t: torch.full((), float(t), device="cuda")
    else:
        peer = peers.Torch(work)
        peer.generator, peer.critic = peer.generator.cuda(), peer.critic.cuda()
    if kind == "torch.compile" and not pure:
        peer.generator, peer.critic = torch.compile(peer.generator), torch.compile(peer.critic)
    peer.convert, peer.wait = convert, torch.cuda.synchronize
    return Captured(peer) if kind == "PyTorch under CUDA graphs" else peer


class Captured:
    """A unit of a peer on PyTorch: twice as it is, then captured as a CUDA graph and launched."""

    def __init__(self, peer: Any) -> None:
        import torch
        self.torch, self.peer, self.graph, self.calls = torch, peer, torch.cuda.CUDAGraph(), 0
        self.convert, self.wait = peer.convert, peer.wait
        self.stream = torch.cuda.Stream()
        for group in (group for opt in peer.optimizers for group in opt.param_groups):
            group["capturable"] = True

    def run(self, unit: str, inputs: Any) -> Any:
        self.calls += 1
        if self.calls <= 2:
            self.wait()
            with self.torch.cuda.stream(self.stream):
                loss = self.peer.run(unit, inputs)
            self.wait()
            return loss
        if self.calls == 3:
            self.inputs, self.own = each(self.torch.clone, inputs), []
            each(self.own.append, self.inputs)
            with self.torch.cuda.graph(self.graph, stream=self.stream):
                self.loss = self.peer.run(unit, self.inputs)
        new: list[Any] = []
        each(new.append, inputs)
        for old, array in zip(self.own, new, strict=True):
            old.copy_(array)
        self.graph.replay()
        return self.loss


def jax_peer(kind: str, work: Any) -> Any:
    """JAX on the GPU, in float32 throughout."""
    import jax
    jax.config.update("jax_default_matmul_precision", "highest")
    return peers.Jax(work)


PEERS = {  # name -> the package that it needs, how it is made
    "PyTorch eager": ("torch", torch_peer), "tinygan eager": ("cupy", tinygan_peer),
    "tinygan program": ("cupy", tinygan_peer), "PyTorch under CUDA graphs": ("torch", torch_peer),
    "torch.compile": ("torch", torch_peer), "JAX jit": ("jax", jax_peer)}
