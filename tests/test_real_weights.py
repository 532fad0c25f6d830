"""Labs 04 and 05 with full-size networks: every cell runs on the path that real ImageNet weights take.

The weights are random, so what the labs find is nonsense; that they run, and within which memory, is not.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model

from helpers.course import notebooks
from helpers.pretrained import remote_set

NETWORKS = {"04_resnet_gradcam.ipynb": ("resnet18", "resnet50"), "05_vgg_hooks.ipynb": ("vgg16",)}
MEMORY = 4e9  # bytes

# In a process of its own, so that its memory can be measured: the lab's cells, one after the other.
RUN = """
import json, os, resource, sys
from types import SimpleNamespace

import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt

from helpers import overlay, pretrained
from helpers.course import notebooks

for name, (url, size) in json.loads(os.environ["TEST_WEIGHTS"]).items():
    known = pretrained.WEIGHTS[name]
    meta = {**known.meta, "_file_size": size / 2**20}
    pretrained.WEIGHTS[name] = SimpleNamespace(url=url, meta=meta, transforms=known.transforms)
overlay.show = lambda figure, alt: (figure.canvas.draw(), plt.close(figure))
cells = notebooks.read(notebooks.SOLUTIONS / sys.argv[1]).cells
space = {"__name__": "__main__"}
for number, cell in enumerate(cells, 1):
    if cell.cell_type == "code":
        exec(compile(cell.source, f"{sys.argv[1]}, cell {number}", "exec"), space)
if sys.platform == "linux":  # where getrusage would also count the process that started this one
    with open("/proc/self/status", encoding="utf-8") as status:
        print("peak", 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
else:
    unit = 1 if sys.platform == "darwin" else 1024
    print("peak", unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def random_file(name: str, folder: Path) -> tuple[str, int]:
    """A file of random weights whose name has its checksum -> an address that ends with it, and its size."""
    with torch.device("meta"):
        shapes = get_model(name, weights=None).state_dict()
    torch.manual_seed(0)
    state = {
        key: torch.zeros((), dtype=torch.int64)  # batches counted
        if value.dtype == torch.int64
        else torch.randn(value.shape) * (2 / max(value[0].numel(), 1)) ** 0.5  # He et al. 2015
        if value.ndim > 1
        else torch.ones(value.shape)
        if key.endswith(("running_var", "weight"))
        else torch.zeros(value.shape)
        for key, value in shapes.items()
    }
    part = folder / "part"
    torch.save(state, part)
    with open(part, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    final = part.rename(folder / f"{name}-{checksum[:8]}.pth")
    return f"http://127.0.0.1:9/{final.name}", final.stat().st_size


@pytest.mark.parametrize("lab", NETWORKS)
def test_lab_runs_with_full_size_networks(lab, tmp_path):
    folder = tmp_path / remote_set("vgg16").folder.name
    folder.mkdir()
    weights = {name: random_file(name, folder) for name in NETWORKS[lab]}
    environment = {
        **os.environ,
        "LABS_DATA": str(tmp_path),
        "LABS_DATA_SOURCE": "real",
        "LABS_HEADLESS": "1",
        "TEST_WEIGHTS": json.dumps(weights),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, lab],
        cwd=notebooks.ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ImageNet weights" in done.stdout and "stand-in, eight" not in done.stdout
    assert int(done.stdout.rpartition("peak ")[2]) <= MEMORY
    for path in folder.glob("*.pth"):  # pytest keeps temporary folders of three runs
        path.unlink()


def test_both_labs_are_tried():
    with_weights = {
        path.name
        for path in notebooks.SOLUTIONS.glob("*.ipynb")
        if "helpers.pretrained" in path.read_text(encoding="utf-8")
    }
    assert with_weights == set(NETWORKS)
