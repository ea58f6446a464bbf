"""Importing the package is cheap, and the tests' own net (annotations checked, warnings as errors)
is really there.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import reasontrain
from reasontrain import rng
from reasontrain.types import Batch

ROOT = Path(__file__).resolve().parents[1]


def in_a_new_process(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_importing_the_package_brings_nothing_heavy():
    code = (
        "import sys, reasontrain; print(sorted({'numpy', 'pydantic', 'torch', 'transformers'} "
        "& {*sys.modules}))"
    )
    assert in_a_new_process(code) == "[]"


def test_waiting_threads_sleep_unless_the_environment_says_otherwise():
    code = "import os, reasontrain; print(os.environ['OMP_WAIT_POLICY'])"
    assert in_a_new_process(code) == "PASSIVE"
    assert in_a_new_process(code, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


def test_arguments_of_the_wrong_type_are_caught_while_tests_run():
    with pytest.raises(TypeCheckError, match="uniform"):
        rng.uniform(torch.zeros(2))  # float keys


def test_fields_of_the_wrong_shape_are_caught_while_tests_run():
    row_B, table_BT = torch.zeros(2), torch.zeros(2, 3, dtype=torch.long)
    ids_B = torch.zeros(2, dtype=torch.long)
    with pytest.raises(TypeCheckError, match="advantage_B"):
        Batch(
            ids_BT=table_BT,
            kind_BT=table_BT,
            rollout_B=ids_B,
            group_B=ids_B,
            reward_B=row_B,
            advantage_B=torch.zeros(3),
        )


def test_a_warning_from_our_own_code_is_an_error_and_another_one_is_not():
    with warnings.catch_warnings(record=True) as heard:
        warnings.warn_explicit("theirs", UserWarning, "elsewhere.py", 1, module="elsewhere")
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn_explicit("ours", UserWarning, "loop.py", 1, module="reasontrain.run.loop")
    assert [str(warning.message) for warning in heard] == ["theirs"]


def test_the_version_is_three_numbers():
    assert [part.isdecimal() for part in reasontrain.__version__.split(".")] == [True] * 3
