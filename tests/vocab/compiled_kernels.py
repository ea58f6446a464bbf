"""Compile every specialisation of the Triton kernels for GPUs that need not be present.

Run as a program without TRITON_INTERPRET. Prints a JSON list with one object per kernel,
specialisation and architecture: registers per thread, bytes of stack (where registers spill to) and
of shared memory, as cuobjdump reads them from the cubin.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from reasontrain.vocab import triton_backend, triton_kernels

POINTERS = ("x_ptr", "y_ptr", "ids_ptr", "stats_ptr", "mixture_ptr", "grads_ptr", "out_ptr")
ALIGNED = (*POINTERS, "x_stride", "y_stride", "width")
"""Arguments that are multiples of 16 with a vocabulary that is one; Triton specialises on this."""
FLAGS = {
    triton_kernels.statistics: ("TEACHER",),
    triton_kernels.mixture: (),
    triton_kernels.gradient: ("LOGP", "ENTROPY", "REVERSE", "FORWARD", "JSD"),
}


@dataclass(frozen=True)
class Specialisation:
    """A kernel with its flags; `aligned` states that the vocabulary is a multiple of 16."""

    kernel: triton.JITFunction
    flags: tuple[str, ...]
    aligned: bool

    @property
    def name(self) -> str:
        return " ".join((self.kernel.__name__, *self.flags, *["aligned"] * self.aligned))

    def source(self) -> ASTSource:
        constants = {flag: flag in self.flags for flag in FLAGS[self.kernel]}
        constants["TILE"] = triton_backend.TILE
        names = self.kernel.arg_names
        return ASTSource(
            self.kernel,
            {name: _type(name) for name in names},
            constexprs=constants,
            attrs={
                (index,): [["tt.divisibility", 16]]
                for index, name in enumerate(names)
                if name in (ALIGNED if self.aligned else POINTERS)
            },
        )


def _type(name: str) -> str:
    """Triton's type of an argument, as the backend passes it."""
    if name.isupper():
        return "constexpr"
    if name == "ids_ptr":
        return "*i64"
    if name.endswith("_ptr"):
        return "*fp32"
    return "fp32" if name.startswith("log_") else "i32"


def specialisations(every: bool) -> Iterator[Specialisation]:
    """The specialisations that objectives use; all combinations of flags if `every` is set."""
    for kernel, flags in FLAGS.items():
        subsets = (
            [c for n in range(len(flags) + 1) for c in itertools.combinations(flags, n)]
            if every
            else [(), *((flag,) for flag in flags), flags]
        )
        for subset in dict.fromkeys(subsets):
            for aligned in (True, False) if every else (True,):
                yield Specialisation(kernel, subset, aligned)


def resources(specialisation: Specialisation, arch: int) -> dict[str, int]:
    """Registers per thread, and bytes of stack and shared memory, of a compiled kernel."""
    compiled = triton.compile(
        specialisation.source(),
        target=GPUTarget("cuda", arch, 32),
        options=dict(triton_backend.OPTIONS),
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    numbers = {key: int(number) for key, number in re.findall(r"([A-Z]+):(\d+)", usage)}
    return {
        "registers": numbers["REG"],
        "stack": numbers["STACK"],
        "shared": compiled.metadata.shared,
    }


def main() -> None:
    """Compile for the architectures of the command line, and print what the kernels use."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", action="store_true", help="all combinations of flags")
    parser.add_argument("arch", type=int, nargs="+", help="for example 90 for sm_90")
    options = parser.parse_args()
    rows = [
        {"kernel": specialisation.name, "arch": arch, **resources(specialisation, arch)}
        for arch in options.arch
        for specialisation in specialisations(options.every)
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
