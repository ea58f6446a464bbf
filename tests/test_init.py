"""Importing the package is cheap, and tests check annotations and turn warnings into errors."""

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


def output_of(code: str, **environment: str) -> str:
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
    assert output_of(code) == "[]"


def test_waiting_threads_sleep_unless_the_environment_says_otherwise():
    code = "import os, reasontrain; print(os.environ['OMP_WAIT_POLICY'])"
    assert output_of(code) == "PASSIVE"
    assert output_of(code, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


def test_arguments_of_the_wrong_type_are_caught_while_tests_run():
    with pytest.raises(TypeCheckError, match="uniform"):
        rng.uniform(torch.zeros(2))  # float keys


def test_fields_of_the_wrong_shape_are_caught_while_tests_run():
    reward_B = torch.zeros(2)
    ids_B = torch.zeros(2, dtype=torch.long)
    ids_BT = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(TypeCheckError, match="advantage_B"):
        Batch(
            ids_BT=ids_BT,
            kind_BT=ids_BT,
            rollout_B=ids_B,
            group_B=ids_B,
            reward_B=reward_B,
            advantage_B=torch.zeros(3),
        )


def test_a_warning_is_an_error_whichever_package_it_is_from():
    for module in ("elsewhere", "reasontrain.run.loop"):
        with pytest.raises(UserWarning, match="careful"):
            warnings.warn_explicit("careful", UserWarning, "file.py", 1, module=module)


def test_the_version_is_three_numbers():
    assert [part.isdecimal() for part in reasontrain.__version__.split(".")] == [True] * 3
