"""What libraries say on their own, silenced."""

from __future__ import annotations

import os

import torch
import transformers


def quiet_libraries() -> None:
    """No progress bars or advice of libraries between our own lines, in this process."""
    if not torch.cuda.is_available():
        os.environ.setdefault(
            "DS_ACCELERATOR", "cpu"
        )  # or DeepSpeed, where it is installed, warns that it found no GPU
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
