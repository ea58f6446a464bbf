"""What holds for every test: offline, one thread, the same seed, and every shape annotation in
reasontrain checked.
"""

from __future__ import annotations

import os

# Read when torch or a Hugging Face library is imported, so they come before those.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["WANDB_MODE"] = "disabled"

import builtins
import pkgutil
import random
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy
import pytest
import torch
from jaxtyping import install_import_hook
from transformers import PreTrainedTokenizerBase

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = (
        "1"  # read when kernels are decorated: without a GPU they run on the CPU, line by line
    )

# From here on a module of reasontrain is imported with its annotations enforced: types by beartype,
# shapes by jaxtyping. Tasks are left out: they hold no tensors and make problems by the ten
# thousand, and checks would take far longer than the work.
PACKAGE = Path(__file__).parents[1] / "reasontrain"
CHECKED = [
    room.name
    for room in pkgutil.iter_modules([str(PACKAGE)], "reasontrain.")
    if room.name != "reasontrain.tasks"
]
install_import_hook(CHECKED, "beartype.beartype")

# Modules that a recipe is read with import these for type checkers only, so that reading one needs
# neither torch nor transformers. An annotation with an unknown name is not enforced, silently.
for annotation in (torch.Tensor, PreTrainedTokenizerBase):
    setattr(builtins, annotation.__name__, annotation)

from reasontrain.algo import evidence  # noqa: E402  # as above
from tests.graders import IdleWorkers  # noqa: E402  # imports what the hook must see first

torch.set_num_threads(1)

# Slow machines must not fail a property, and the same examples must be tried wherever the tests
# run.
hypothesis.settings.register_profile(
    "reasontrain", deadline=None, derandomize=True, database=None, max_examples=30
)
hypothesis.settings.load_profile("reasontrain")


@pytest.fixture(autouse=True)
def _same_seed() -> None:
    """Every test starts from the same random state, whichever ran before it and on whichever
    worker.
    """
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _same_evidence() -> Iterator[None]:
    """Rows that plug-ins add to the table of evidence are gone after the test."""
    before = dict(evidence._TABLE)
    yield
    if before != evidence._TABLE:
        evidence._TABLE.clear()
        evidence._TABLE.update(before)


@pytest.fixture(scope="session")
def idle_workers() -> Iterator[IdleWorkers]:
    """Grading processes for tests that are not about them."""
    workers = IdleWorkers()
    yield workers
    workers.end()
