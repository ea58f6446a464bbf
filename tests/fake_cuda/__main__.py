"""Train by recipes on a fake CUDA device, and print what mixes devices or makes the host wait.

    python -m tests.fake_cuda recipes/tiny/tip.yaml steps=2 evaluate=null recipes/tiny/grpo.yaml ...

Every argument that ends in `.yaml` begins another run, and the arguments after it are overrides.
Prints one line of JSON per run: exit codes, mixes of devices, calls of each phase of a step, syncs
and uploads by phase and line, and ATen calls per decode step. Exits 1 if a run failed.
"""

from __future__ import annotations

import json
import os
import sys

from tests.fake_cuda.library import load_guard


def main(arguments: list[str]) -> int:
    """Run the recipes of a command line; return the exit code."""
    load_guard()
    # DeepSpeed, which libraries import where it is installed, looks for a real GPU.
    os.environ["DS_ACCELERATOR"] = "cpu"
    # Imported here: torch finds the guard when it is imported.
    from tests.fake_cuda import runs

    runs.prepare()
    requested: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.endswith(".yaml"):
            requested.append((argument, []))
        else:
            requested[-1][1].append(argument)
    failed = False
    for recipe, overrides in requested:
        result = runs.run(recipe, overrides)
        print(json.dumps(result), flush=True)
        failed |= result["exit_codes"][-1] != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
