#!/usr/bin/env python3
"""Build a Python in which CuPy runs without a GPU, and print the path of its interpreter.

    python3 tests/cuda_on_cpu/build.py

Takes a minute or two the first time, and no time when nothing has changed. It needs g++ and
Python's headers (apt-get install g++ python3-dev python3-venv) and a package index (PIP_INDEX_URL,
or PyPI). What this shows, and what it cannot show, is in README.md.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
CUPY = "14.2.0"
PACKAGES = [f"cupy-cuda12x=={CUPY}", "nvidia-cuda-runtime-cu12==12.9.79",
            "nvidia-cuda-nvcc-cu12==12.9.86", "cython==3.2.*", "numpy>=2", "matplotlib",
            "threadpoolctl", "pytest", "pytest-xdist", "hypothesis"]
LIBRARIES = ("libcuda.so.1", "libnvrtc.so.12", "libcublas.so.12", "libcublasLt.so.12")
KERNELS = "-std=gnu++17 -O1 -w -fPIC -mf16c -ffp-contract=off -fno-gnu-unique"  # how to compile one
PROFILER = """#include <cuda_runtime_api.h>
extern "C" cudaError_t cudaProfilerStart(void), cudaProfilerStop(void);
"""
START = """import ctypes, os, sys
os.environ.setdefault("CUPY_ACCELERATORS", "")      # no CUB, whose kernels g++ cannot compile
os.environ.setdefault("CUPY_CACHE_IN_MEMORY", "1")  # kernels are kept by the stand-in
sys.setdlopenflags(os.RTLD_LAZY)                    # CUDA's missing functions may stay missing
for name in {libraries}:
    ctypes.CDLL({folder!r} + name, ctypes.RTLD_GLOBAL)
"""


def run(*command: object, cwd: Path | None = None) -> None:
    """Run a command, or stop with what it said."""
    print("+", *command, file=sys.stderr, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, stdout=sys.stderr)


def source(folder: Path) -> Path:
    """The files of CuPy's source package that its extensions are built from."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/cupy/"
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(index, headers=accept)) as page:
        files = {file["filename"]: file for file in json.load(page)["files"]}
    file = files[f"cupy-{CUPY}.tar.gz"]
    with urllib.request.urlopen(urllib.parse.urljoin(index, file["url"])) as page:
        data = page.read()
    if hashlib.sha256(data).hexdigest() != file["hashes"]["sha256"]:
        raise SystemExit("CuPy's source package is damaged; try again")
    (folder / "cupy.tar.gz").write_bytes(data)
    with tarfile.open(folder / "cupy.tar.gz") as package:
        wanted = [m for m in package if m.name.startswith(f"cupy-{CUPY}/cupy_backends/")]
        package.extractall(folder, wanted)
    return folder / f"cupy-{CUPY}"


def build_runtime(python: Path, folder: Path, includes: list[str], binding: Path) -> None:
    """Compile CuPy's binding of the CUDA runtime anew: the wheel's own has the real one inside."""
    tree = source(folder)
    (tree / "cuda_profiler_api.h").write_text(PROFILER)
    settings = {"CUPY_USE_CUDA_PYTHON": False, "CUPY_CUDA_VERSION": 12090, "CUPY_HIP_VERSION": 0}
    defined = [word for name, value in settings.items() for word in ("-E", f"{name}={value}")]
    name = "cupy_backends/cuda/api/runtime"
    run(python, "-m", "cython", "--cplus", "-3", *defined, f"{name}.pyx", cwd=tree)
    run("g++", "-O1", "-w", "-fPIC", "-shared", "-I.", f"-I{sysconfig.get_path('include')}",
        *includes, f"{name}.cpp", "-o", binding, cwd=tree)


def build(folder: Path, python: Path) -> None:
    """Install the packages, from nothing, and put the stand-in in the place of CUDA."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not (shutil.which("g++") and headers.exists()):
        raise SystemExit("a compiler is missing: apt-get install g++ python3-dev python3-venv")
    run(sys.executable, "-m", "venv", "--clear", folder)
    run(python, "-m", "pip", "install", "-q", *PACKAGES)
    site = site_packages(folder)
    includes = [f"-I{site}/nvidia/{part}/include" for part in ("cuda_runtime", "cuda_nvcc")]
    [binding] = (site / "cupy_backends/cuda/api").glob("runtime.*.so")
    build_runtime(python, folder, includes, binding)

    cupy = site / "cupy/_core/include"
    kernels = f"{KERNELS} -I{cupy} -I{cupy}/cupy/_cccl/thrust -I{cupy}/cupy/_cccl/libcudacxx"
    shutil.copy(HERE / "shim.h", folder)
    run("g++", *kernels.split(), "-x", "c++-header", "shim.h", "-o", "shim.h.gch", cwd=folder)
    run("g++", "-std=c++17", "-O3", "-mavx2", "-fPIC", "-shared", f'-DFLAGS="{kernels} -shared"',
        *includes, HERE / "cuda.cpp", HERE / "cublas.cpp", "-o", folder / LIBRARIES[0], "-ldl",
        f"-Wl,-soname,{LIBRARIES[0]}")
    for name in LIBRARIES[1:]:  # empty, but that they lead to the first
        run("g++", "-shared", "-Wl,--no-as-needed", f"-Wl,-soname,{name}", "-Wl,-rpath,$ORIGIN",
            folder / LIBRARIES[0], "-o", folder / name)
    (site / "cuda_on_cpu.py").write_text(START.format(libraries=LIBRARIES, folder=f"{folder}/"))
    (site / "cuda_on_cpu.pth").write_text("import cuda_on_cpu\n")
    (folder / "kernels").mkdir()


def site_packages(folder: Path) -> Path:
    """Where the packages of a virtual environment lie."""
    return Path(sysconfig.get_path("platlib", "venv", {"platbase": str(folder)}))


def main() -> None:
    """Build what is not built yet; let ``import tinygan`` find this checkout."""
    folder = Path.home() / ".cache/tinygan-cuda-on-cpu"
    python, stamp = folder / "bin/python", folder / "stamp"
    files = [HERE / name for name in ("build.py", "cuda.cpp", "cublas.cpp", "shim.h")]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if not (stamp.exists() and stamp.read_text() == state + sys.version):
        build(folder, python)
        stamp.write_text(state + sys.version)
    (site_packages(folder) / "checkout.pth").write_text(f"{CHECKOUT}\n")
    print(python)


main()
