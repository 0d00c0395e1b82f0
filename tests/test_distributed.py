"""Training on several MPI processes. What needs MPI is marked, and skipped where there is none.

Each such test starts ``mpiexec`` on a function of this file, or on the command line.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tinygan import GAN, data
from tinygan.training import METHODS, distributed
from tinygan.training.distributed import Draws, Ranks

LIMIT = 60  # seconds, after which a run counts as hanging
SMALL = dict(steps=4, batch=4, width=8, latent=3)


def mpiexec(count, *command, limit=LIMIT, **options):
    """Start processes under MPI with one BLAS thread each."""
    path = os.pathsep.join(sys.path)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.Popen(["mpiexec", "-n", str(count), sys.executable, *map(str, command)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment, **options)


def ended(process):
    """(exit code, stdout, stderr) of a process that ends within the limit."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"hangs: {process.communicate()}") from None
    return process.returncode, out, err


def play(count, function, *arguments, **options):
    """Call a function of this file in so many processes; its output."""
    code, out, err = ended(mpiexec(count, __file__, function, *arguments, **options))
    assert code == 0, (out, err)
    return out


def tinygan(count, *arguments, **options):
    """The command line in so many processes."""
    return ended(mpiexec(count, "-m", "tinygan", *arguments, **options))


def lines(text):
    """The lines of tinygan itself, without those of MPI."""
    return [line for line in text.splitlines() if line.startswith("tinygan:")]


def world():
    from mpi4py import MPI

    return MPI.COMM_WORLD


WATCHED = "history", "moments"  # by the first rank, and not by ``Run.iterate``


def bits(run, *but):
    """A hash of what outlives an iteration, but for parts of it."""
    arrays, values = run.state_dict()
    kept = sorted((name, a.tobytes()) for name, a in arrays.items()
                  if name.partition("/")[0] not in but)
    values = {name: value for name, value in values.items() if name != "seconds"}
    return hashlib.sha256(repr((kept, values)).encode()).hexdigest()


def images():
    return data.image_array(np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), np.uint8))


CASES = [(method, net, eager) for method, row in METHODS.items() for net in ("mlp", "conv")
         for eager in (False, True) if net not in row.without and not ("net" in row.without
                                                                      and net == "conv")]


# ------------------------------------------------------------------------- without MPI


@pytest.mark.parametrize("parts", [0, 1, 2, 3, 7, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_ranks_share_all_parts_in_order_and_evenly(parts, size):
    def of(rank):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        return ranks.share(parts)

    shares = [of(rank) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(parts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_sums_and_agreements_are_what_was_given():
    alone, arrays = Ranks(), [np.ones(3, np.float32), np.float32(2)]
    assert all(a is b for a, b in zip(alone.sum(arrays), arrays))
    assert alone.agree(0, True, 2.5) == [0, True, 2.5] and alone.size == 1 and alone.rank == 0
    alone.check_alike({"anything": object()})
    assert distributed.world().size == 1 and alone.device("cpu") == "cpu"


def test_draws_are_noted_and_repeated():
    from tinygan import backend

    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    draws = Draws()
    token = backend.tracer.set(draws)
    try:
        backend.normal(rng, (3,)), backend.uniform(rng, (2, 2), np.float64)
    finally:
        backend.tracer.reset(token)
    draws.repeat(2)
    for _ in range(3):
        other.standard_normal(3, np.float32), other.random((2, 2))
    assert rng.bit_generator.state == other.bit_generator.state


@pytest.mark.parametrize("name", distributed.SIZES)
def test_processes_without_mpi4py_are_told_so(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    for other in distributed.SIZES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "1")
    assert distributed.world().size == 1
    monkeypatch.setenv(name, "4")
    with pytest.raises(ValueError, match="started as 4 processes, but mpi4py cannot be imported"):
        distributed.world()


STUCK = """
import hashlib, os, signal, subprocess, sys, time
from tinygan.app import process
process.PATIENCE = 1
take = {"heard": process.heard}.get(sys.argv[1], lambda: None)
signal.signal(signal.SIGTERM, lambda *_: take())
process.watch()
print(os.getpid(), flush=True)
if sys.argv[1] == "heard":
    time.sleep(30)
else:  # in C, where no handler of Python runs
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def alive(pid):
    """Whether there is such a process that has not ended, even if nobody has asked for its code."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return found.stdout.strip()[:1] not in ("", "Z")


def gone(pids, within):
    """Whether processes end within some seconds."""
    deadline = time.perf_counter() + within
    while any(map(alive, pids)) and time.perf_counter() < deadline:
        time.sleep(0.1)
    return not any(map(alive, pids))


def test_a_watched_process_ends_if_a_signal_waits_or_its_parent_has_gone():
    def started(*command):
        path = os.pathsep.join(sys.path)
        return subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True,
                                env=os.environ | {"PYTHONPATH": path})

    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    stuck, heard, above = (started("-c", STUCK, "stuck"), started("-c", STUCK, "heard"),
                           started("-c", parent, STUCK, "orphan"))
    try:
        _, _, orphan = pids = [int(process.stdout.readline()) for process in (stuck, heard, above)]
        assert all(map(alive, pids))
        for process in (stuck, heard):
            process.terminate()
        above.kill()
        assert stuck.wait(20) == 128 + signal.SIGTERM and gone([orphan], 20)
        time.sleep(1)
        assert heard.poll() is None, "a signal that was heard ends nothing"
    finally:
        for process in (stuck, heard, above):
            process.kill()
            process.wait()
            process.stdout.close()


def test_importing_the_package_does_not_load_mpi4py():
    code = "import sys, tinygan, tinygan.app.commands; print('mpi4py' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_equal_data_have_equal_fingerprints_and_others_do_not():
    points = np.random.default_rng(0).normal(size=(50, 2))
    changed = points.copy()
    changed[17, 1] += 1e-3
    assert data.points(points).fingerprint() == data.points(points.copy()).fingerprint()
    others = [data.points(changed), data.points(points[:-1]), data.points(points * 2), data.ring(),
              data.grid(), images()]
    prints = [d.fingerprint() for d in [data.points(points), *others]]
    assert len(set(prints)) == len(prints)


# ---------------------------------------------------------------------------- with MPI


mpi = pytest.mark.mpi


def same_as_accumulated(parts):
    """Play all cases on all ranks, and alone on the first; print those that differ."""
    comm, checked = world(), 0
    for method, net, eager in CASES:
        how = SMALL | dict(method=method, net=net, eager=eager, width=2 if net == "conv" else 8)
        source = images() if net == "conv" else data.ring()
        together = GAN(**how, accumulate=int(parts), comm=comm).fit(source)
        found = comm.gather((bits(together.run_, *WATCHED), together.sample(5).tobytes()))
        if comm.Get_rank() == 0:
            alone = GAN(**how, accumulate=int(parts)).fit(source)
            expected = bits(alone.run_, *WATCHED), alone.sample(5).tobytes()
            moments = bits(together.run_, "history") == bits(alone.run_, "history")
            columns = [[v for name, v in run.history_.items() if name != "seconds"]
                       for run in (together, alone)]
            checked += 1
            alike = set(found) == {expected} and np.array_equal(*columns, equal_nan=True)
            if not alike or not moments:
                print("differs:", method, net, eager)
    if comm.Get_rank() == 0:
        print("checked", checked)


@mpi
@pytest.mark.parametrize("ranks, parts", [(2, 2), (3, 2)])
def test_ranks_are_an_accumulated_batch_bit_for_bit(ranks, parts):
    """Of two terms there is one sum, whatever its order: weights, log, samples are equal."""
    assert play(ranks, "same_as_accumulated", parts) == f"checked {len(CASES)}\n"


def close_to_accumulated(parts):
    """In float64, where rounding is small: the largest differences of weights, by method."""
    from test_networks import change, plain
    from tinygan.training import Config, Run, new_game

    comm = world()
    for method in METHODS:
        runs = []
        for ranks in (Ranks(comm), Ranks()):
            config = Config(method=method, accumulate=int(parts), **SMALL)
            run = plain(Run(new_game(config, data.grid(), ranks=ranks), eager=True), np.float64)
            networks = run.game.networks.values()
            run.weights = [p for network in networks for p in network.parameters()]
            run.start = [type(p)(p.data.copy()) for p in run.weights]
            run.losses = [run.iterate() for _ in range(3)]
            runs.append(run)
        together, alone = runs
        off = change(together, alone)
        losses = max(abs(a[name] - b[name]) / (1 + abs(b[name])) for a, b
                     in zip(together.losses, alone.losses) for name in a)
        states = [run.game.rng.bit_generator.state for run in runs]
        assert comm.allgather(off < 1e-12 and losses < 1e-12 and states[0] == states[1]) \
            == [True] * comm.Get_size(), (method, off, losses)
    if comm.Get_rank() == 0:
        print("close")


@mpi
@pytest.mark.parametrize("ranks, parts", [(2, 5), (3, 7)])
def test_ranks_with_several_parts_are_an_accumulated_batch_to_rounding(ranks, parts):
    assert play(ranks, "close_to_accumulated", parts) == "close\n"


@mpi
def test_one_rank_is_a_plain_run(tmp_path):
    how = "train", "ring", "--steps", 4, "--width", 8, "--out"
    assert tinygan(1, *how, tmp_path / "a")[0] == 0
    assert subprocess.run([sys.executable, "-m", "tinygan", *map(str, how), tmp_path / "b"],
                          capture_output=True).returncode == 0
    a, b = (GAN.load(tmp_path / name / "checkpoint.npz") for name in "ab")
    assert bits(a.run_, "history") == bits(b.run_, "history")


def half_a_run(parts, path):
    """Play the first 4 of 8 iterations, and save."""
    gan = GAN(**SMALL | {"steps": 8}, accumulate=int(parts), comm=world())
    run = gan.prepare("ring")
    for _ in range(4):
        run.iterate()
    if world().Get_rank() == 0:
        gan.save(path)


@mpi
@pytest.mark.parametrize("first, then, parts", [(2, 3, 2), (2, 1, 2), (1, 2, 1), (3, 2, 2)])
def test_a_run_is_resumed_by_another_number_of_ranks(first, then, parts, tmp_path):
    """Of two parts at most, so that all sums are the same bits. Some ranks have no part to do."""
    (tmp_path / "run").mkdir()
    play(first, "half_a_run", parts, tmp_path / "run" / "checkpoint.npz")
    code, out, err = tinygan(then, "train", "--resume", tmp_path / "run")
    assert code == 0, err
    whole = GAN(**SMALL | {"steps": 8}, accumulate=parts).fit("ring")
    resumed = GAN.load(tmp_path / "run" / "checkpoint.npz")
    assert bits(resumed.run_, *WATCHED) == bits(whole.run_, *WATCHED)  # but the first half


@mpi
@pytest.mark.parametrize("arguments, code, said", [
    (["train", "--help"], 0, "usage: tinygan train"), (["methods"], 0, "vae-gan"),
    (["train", "--steps", "none"], 2, "invalid int value"),
    (["train", "absent.csv"], 2, "absent.csv"), (["train", "--width", "0"], 2, "width must be"),
    (["evaluate", "absent"], 4, "absent")])
def test_one_rank_speaks_for_all(arguments, code, said, tmp_path):
    found, out, err = tinygan(2, *arguments, cwd=tmp_path)
    assert found == code and (out + err).count(said) == 1, (out, err)
    assert len(lines(err)) == (code > 0)


@mpi
def test_the_header_names_the_ranks(tmp_path):
    code, out, err = tinygan(2, "train", "--steps", 2, "--width", 8, "--out", tmp_path / "run")
    assert code == 0 and out.count("2 ranks on 1 host") == 1 and "batch 64 x 2 accumulated" in out


def trained_with(fault, rank, when, *arguments):
    """The command line with a fault on one rank: ``raise`` an exception or ``kill`` the process."""
    import tinygan.app.commands as commands
    from tinygan import __main__
    from tinygan.app import folder
    from tinygan.training import estimator, game, samples

    stages = {"load": (commands.GAN, "prepare"), "start": (estimator.Run, "__init__"),
              "draw": (game.Game, "real"), "gradients": (game.Game, "critic_gradients"),
              "sum": (Ranks, "sum"), "agree": (Ranks, "agree"), "evaluate": (samples, "evaluate"),
              "save": (folder, "save"), "pictures": (commands.report, "write_pictures"),
              "end": (folder, "write_json")}
    holder, name = stages[when]
    original, calls = getattr(holder, name), []

    def faulty(*arguments, **options):
        calls.append(1)
        late = {"draw": 12, "gradients": 2, "sum": 12, "agree": 12, "end": 2}
        if len(calls) == late.get(when, 1):
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"memory": MemoryError, "disk": OSError}.get(fault, RuntimeError)("made up")
        return original(*arguments, **options)

    if world().Get_rank() == int(rank):
        setattr(holder, name, faulty)
    sys.argv = ["tinygan", *arguments]
    sys.exit(__main__.main())


STAGES = "load", "start", "draw", "gradients", "sum", "agree"
SOME = {("memory", 3, 2), ("kill", 2, 1), ("bug", 2, 0)}  # the others are a long form
FAULTS = [pytest.param(fault, code, ranks, rank, when,
                       marks=() if (fault, ranks, rank) in SOME else pytest.mark.thorough)
          for fault, code in (("memory", 5), ("bug", 1), ("kill", 9))
          for ranks, rank in ((2, 0), (2, 1), (3, 2)) for when in STAGES]


@mpi
@pytest.mark.parametrize("fault, code, ranks, rank, when", FAULTS)
def test_a_fault_on_one_rank_ends_all(fault, code, ranks, rank, when, tmp_path):
    begun = time.perf_counter()
    found, out, err = ended(mpiexec(
        ranks, __file__, "trained_with", fault, rank, when, "train", "--steps", 300, "--width", 8,
        "--out", tmp_path / "run"))
    assert time.perf_counter() - begun < 20 and found == code, (found, err)
    assert len(lines(err)) == (fault != "kill"), err
    if rank and fault != "kill":
        assert lines(err)[0].startswith(f"tinygan: rank {rank}: ")
    usable_or_absent(tmp_path / "run")


@mpi
@pytest.mark.parametrize("when", ["evaluate", "save", "pictures", "end"])
@pytest.mark.parametrize("fault, code", [("memory", 5), ("disk", 6), ("kill", 9)])
def test_a_fault_of_the_rank_that_writes_ends_all(fault, code, when, tmp_path):
    begun = time.perf_counter()
    found, out, err = ended(mpiexec(
        2, __file__, "trained_with", fault, 0, when, "train", "--steps", 60, "--width", 8,
        "--out", tmp_path / "run"))
    assert time.perf_counter() - begun < 20 and found == code, (found, err)
    assert len(lines(err)) == (fault != "kill"), err
    usable_or_absent(tmp_path / "run")


def usable_or_absent(folder):
    """What a run left behind is a good checkpoint, or none."""
    if (folder / "checkpoint.npz").exists():
        assert np.isfinite(GAN.load(folder / "checkpoint.npz").sample(10)).all()


@mpi
def test_divergence_is_told_once_and_explained(tmp_path):
    code, out, err = tinygan(2, "train", "--steps", 50, "--width", 8, "--lr", "1e30",
                             "--out", tmp_path / "run")
    assert code == 7 and len(lines(err)) == 1 and "training diverged at step" in err, err
    usable_or_absent(tmp_path / "run")
    code, out, err = tinygan(1, "explain", tmp_path / "run")
    assert code == 0 and "critic" in out


@mpi
@pytest.mark.parametrize("number, target", [(signal.SIGINT, "mpiexec"), (signal.SIGTERM, "mpiexec"),
                                            (signal.SIGTERM, "rank")])
def test_a_signal_saves_and_ends_all(number, target, tmp_path):
    process = mpiexec(2, "-m", "tinygan", "train", "--steps", 10**6, "--width", 8,
                      "--out", tmp_path / "run")
    deadline = time.perf_counter() + LIMIT
    while not (tmp_path / "run" / "log.csv").exists() and time.perf_counter() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    if target == "rank":
        (lock,) = (tmp_path / "run").glob(".lock.*")
        os.kill(int(lock.name.rpartition(".")[2]), number)
    else:
        process.send_signal(number)
    code, out, err = ended(process)
    assert code == 128 + number, (out, err)
    assert f"stopped by {number.name} at step" in out
    before = GAN.load(tmp_path / "run" / "checkpoint.npz").run_.step
    assert before > 0
    assert tinygan(2, "train", "--resume", tmp_path / "run", "--steps", before + 1)[0] == 0


def waited_for(folder, *arguments):
    """The command line with a last rank that makes the others wait for ever."""
    from tinygan import __main__
    from tinygan.app import process

    rank, agree, calls = world().Get_rank(), Ranks.agree, []

    def late(self, *numbers):
        calls.append(1)
        if len(calls) == 12:
            with open(os.path.join(folder, f"pids.{rank}"), "w") as file:
                file.write(f"{os.getpid()} {os.getppid()}\n")
            if rank == 2:
                time.sleep(1000)
        return agree(self, *numbers)

    process.PATIENCE, Ranks.agree = 2, late
    sys.argv = ["tinygan", *arguments]
    sys.exit(__main__.main())


@mpi
@pytest.mark.parametrize("number, target", [
    (signal.SIGKILL, "mpiexec"), (signal.SIGKILL, "parent"), (signal.SIGTERM, "rank")])
def test_ranks_that_wait_for_ever_do_not_outlive_what_ends_them(number, target, tmp_path):
    process = mpiexec(3, __file__, "waited_for", tmp_path, "train", "--steps", 10**6, "--width", 8,
                      "--out", tmp_path / "run")
    deadline, files = time.perf_counter() + LIMIT, []
    while len(files) < 3 or not all(file.read_text().endswith("\n") for file in files):
        assert time.perf_counter() < deadline
        time.sleep(0.05)
        files = sorted(tmp_path.glob("pids.*"))
    ranks, parents = zip(*(map(int, file.read_text().split()) for file in files))
    time.sleep(1)  # until they are in Allreduce
    os.kill({"mpiexec": process.pid, "parent": parents[0], "rank": ranks[0]}[target], number)
    try:
        assert gone(ranks, 20)
        if target == "rank":
            assert process.wait(20)  # its code, or that of those that mpiexec then killed
    finally:
        for pid in filter(alive, [process.pid, *ranks]):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
    usable_or_absent(tmp_path / "run")


def unlike(what):
    """Ranks that are not alike: rank 1 has another setting, data set, version or number of GPUs."""
    from tinygan import backend
    from tinygan.training import estimator

    rank = world().Get_rank()
    if what == "version" and rank == 1:
        estimator.__version__ = "0.0"
    device = "cpu"
    if what == "number of GPUs":  # a host with fewer of them; the game is not reached
        device, backend.gpu_count = "cuda:0", lambda: (2 - (rank == 1), "")
    points = np.random.default_rng(0).normal(size=(50, 2))
    if what == "data" and rank == 1:
        points[30, 0] += 1
    gan = GAN(**SMALL, lr=0.1 if what == "settings" and rank == 1 else 0.01, device=device,
              comm=world())
    try:
        gan.prepare(points)
    except ValueError as error:
        assert "rank 1 has another" in str(error) and what in str(error), error
        if rank == 0:
            print("told")


@mpi
@pytest.mark.parametrize("what", ["version", "data", "settings", "number of GPUs"])
def test_ranks_that_are_not_alike_are_named(what):
    assert play(3, "unlike", what) == "told\n"


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
