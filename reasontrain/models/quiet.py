"""Suppression of the progress bars and advice that libraries print."""

from __future__ import annotations

import os

import torch
import transformers


def quiet_libraries() -> None:
    """Turn off progress bars and advice of libraries in this process."""
    if not torch.cuda.is_available():
        # Otherwise DeepSpeed, if installed, warns that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
