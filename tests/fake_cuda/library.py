"""The guard of the fake CUDA device: compiled once per build of torch, and loaded before it."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")
NO_COMPILER = (
    "the fake CUDA device needs a C++ compiler, and there is no g++ here: apt-get install g++"
)
REAL_CUDA = "the fake CUDA device needs a build of torch for CPUs, and this one is for CUDA"


def load_guard() -> None:
    """Load torch's libraries and the guard, which registers itself for CUDA.

    torch looks for a guard when it is imported, so this comes first. Exits with one sentence if
    there is no compiler, or a real device.
    """
    assert "torch" not in sys.modules, "the guard is loaded before torch"
    spec = importlib.util.find_spec("torch")
    assert spec is not None, "torch is installed"
    assert spec.submodule_search_locations, "torch is a package"
    torch_directory = Path(spec.submodule_search_locations[0])
    libraries = torch_directory / "lib"
    if (libraries / "libtorch_cuda.so").exists():
        sys.exit(REAL_CUDA)
    guard = _compiled(torch_directory)
    for path in (
        *sorted(libraries.glob("libgomp*.so*")),
        libraries / "libc10.so",
        libraries / "libtorch_cpu.so",
        guard,
    ):
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def _compiled(torch_directory: Path) -> Path:
    """The compiled guard, from a folder of temporary files if this build of torch has one there."""
    version = (torch_directory / "version.py").read_bytes()
    digest = hashlib.sha256(SOURCE.read_bytes() + version).hexdigest()[:16]
    guard = Path(tempfile.gettempdir()) / f"fake_cuda_guard_{os.getuid()}_{digest}.so"
    if guard.exists():
        return guard
    compiler = shutil.which("g++")
    if compiler is None:
        sys.exit(NO_COMPILER)
    # Under a name of its own until it is whole: tests run in several processes.
    with tempfile.TemporaryDirectory(dir=guard.parent) as directory:
        unfinished = Path(directory) / guard.name
        subprocess.run(
            [
                compiler,
                *("-std=c++20", "-O0", "-fPIC", "-shared"),
                *(f"-I{torch_directory / 'include'}", f"-L{torch_directory / 'lib'}"),
                *(str(SOURCE), "-o", str(unfinished)),
                *("-lc10", "-ltorch_cpu"),
            ],
            check=True,
        )
        unfinished.rename(guard)
    return guard
