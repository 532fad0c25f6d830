"""helpers.device: choice of device, seeds, threads."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from helpers.device import limit_threads, pick_device, seed_everything


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_fastest_device_is_picked(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == torch.device(chosen)


@pytest.fixture
def tf32():
    """TF32 switched on for the test."""
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = True
    yield places
    for place, value in zip(places, before, strict=True):
        place.allow_tf32 = value


@pytest.mark.parametrize("cuda", [True, False])
def test_all_digits_are_kept_on_nvidia(monkeypatch, tf32, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    pick_device()
    assert [place.allow_tf32 for place in tf32] == [not cuda, not cuda]


def test_same_seed_gives_the_same_numbers():
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(1).item()

    seed_everything(7)
    first = draw()
    assert draw() != first
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="use a whole number from 0 to"):
        seed_everything(seed)


def test_threads_are_limited_in_numpy_torch_and_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # restored afterwards
    before = torch.get_num_threads()
    try:
        with threadpool_limits(limits=None):  # restores the limits of the loaded libraries
            torch.set_num_threads(2)
            limit_threads(1)
            assert {pool["num_threads"] for pool in threadpool_info()} == {1}
            assert torch.get_num_threads() == 1
            assert os.environ["OMP_NUM_THREADS"] == "1"
    finally:
        torch.set_num_threads(before)


def test_zero_threads_are_refused():
    with pytest.raises(ValueError, match="use at least 1 thread"):
        limit_threads(0)


def test_torch_stays_unloaded_where_it_is_not_needed():
    code = """if True:
        import sys
        from helpers.device import limit_threads, seed_everything
        seed_everything(0)
        limit_threads(1)
        print("torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "False"
