"""Importing the package is cheap, and the tests' own net (annotations checked, warnings as errors) is really there."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from jaxtyping import TypeCheckError

import reasontrain
from reasontrain import keyed
from reasontrain.types import Batch


def test_importing_the_package_sets_the_wait_policy_and_brings_nothing_heavy():
    code = "import os, sys, reasontrain; print(os.environ['OMP_WAIT_POLICY'], sorted({'torch', 'transformers', 'pydantic'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], env={}, cwd=".", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "PASSIVE []"


def test_an_environment_that_chose_its_own_wait_policy_keeps_it():
    code = "import os, reasontrain; print(os.environ['OMP_WAIT_POLICY'])"
    env = {"OMP_WAIT_POLICY": "ACTIVE"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=".", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ACTIVE"


def test_arguments_of_the_wrong_type_are_caught_while_tests_run():
    with pytest.raises(TypeCheckError, match="uniform"):
        keyed.uniform(torch.zeros(2))  # float keys


def test_fields_of_the_wrong_shape_are_caught_while_tests_run():
    row_B, table_BT = torch.zeros(2), torch.zeros(2, 3, dtype=torch.long)
    ids_B = torch.zeros(2, dtype=torch.long)
    with pytest.raises(TypeCheckError, match="advantage_B"):
        Batch(ids_BT=table_BT, kind_BT=table_BT, rollout_B=ids_B, group_B=ids_B, reward_B=row_B, advantage_B=torch.zeros(3))


def test_a_warning_from_our_own_code_is_an_error_and_another_one_is_not():
    warnings.warn_explicit("elsewhere", UserWarning, "elsewhere.py", 1, module="elsewhere")
    with pytest.raises(UserWarning, match="ours"):
        warnings.warn_explicit("ours", UserWarning, "loop.py", 1, module="reasontrain.loop")


def test_the_version_is_three_numbers():
    assert [part.isdecimal() for part in reasontrain.__version__.split(".")] == [True] * 3
