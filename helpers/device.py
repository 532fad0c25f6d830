"""Which device to compute on, seeds, and the number of threads.

torch is imported only where it is needed: lab 01 computes with NumPy, and the Keras lab must never load it.
"""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    import torch


def pick_device() -> torch.device:
    """The fastest device that torch finds here: "cuda" (NVIDIA or AMD), then "mps" (Apple), then "cpu".

    On NVIDIA, convolutions and matrix products keep all digits of float32 from then on: the labs compare
    maps, and TF32, the faster default, rounds to three digits.
    """
    import torch

    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def seed_everything(seed: int) -> None:
    """Start the global random generators of Python, NumPy and torch (on every device) from `seed`.

    torch is seeded only where it has been imported, so call this after your imports.

    seed  0 to 2**32 - 1, the range that NumPy takes. Raises `ValueError` outside of it.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; use a whole number from 0 to {2**32 - 1}.")
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def limit_threads(count: int = 1) -> None:
    """Let NumPy, torch and the libraries below them use at most `count` threads each, until the process ends.

    One is the fastest for lab 01: its matrices are so small that threads mostly wait for each other.
    Libraries loaded later and processes started later read the same limit from OMP_NUM_THREADS. NumPy on
    macOS may compute with Apple's Accelerate, which takes no limit.

    count  1 or more. Raises `ValueError` otherwise.
    """
    if count < 1:
        raise ValueError(f"count is {count}; use at least 1 thread.")
    os.environ["OMP_NUM_THREADS"] = str(count)
    threadpool_limits(limits=count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
