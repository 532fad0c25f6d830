"""Drawings as other processors make them: NumPy chooses its code by processor, and can be told which."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

ROOT = Path(__file__).parents[1]
SIMPLER = {
    "an old processor's BLAS": {"OPENBLAS_CORETYPE": "Prescott"},
    "a newer processor's BLAS": {"OPENBLAS_CORETYPE": "Haswell"},
    "no vector units": {
        "NPY_DISABLE_CPU_FEATURES": " ".join(f for f in __cpu_dispatch__ if __cpu_features__[f])
    },
}


def drawn_on(processor: str, module: str, drawing: str, folder: Path) -> list[np.ndarray]:
    """The arrays that an expression of names in `module` gives, such as "draw_garments(500)"."""
    code = f"import sys, numpy as np; from {module} import *; np.savez(sys.argv[1], *{drawing})"
    path = folder / "drawn.npz"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, path],
        check=True,
        cwd=ROOT,
        env=os.environ | SIMPLER[processor],
    )
    with np.load(path) as stored:
        return [stored[f"arr_{k}"] for k in range(len(stored.files))]
