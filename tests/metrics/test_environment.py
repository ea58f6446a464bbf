"""Versions that are written down are those of installed packages."""

from __future__ import annotations

import torch

from reasontrain.metrics.environment import environment


def test_versions_are_those_installed() -> None:
    facts = environment(["torch", "no-such-package"], {"seed": 3})
    assert facts["versions"] == {"torch": torch.__version__}
    assert facts["seed"] == 3
