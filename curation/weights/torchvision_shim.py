"""Make `import torchvision` work beside a torch build that its native library does not fit.

A CUDA build of torchvision beside a CPU build of torch fails on import with "operator
torchvision::nms does not exist", and takes open_clip, timm and the vision half of transformers with
it. Nothing here calls those operators: declaring them is enough. Call `ensure_torchvision` before
the first such import, in every process. On an ordinary machine it does nothing.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def ensure_torchvision() -> Any:
    """Declare torchvision's operators where its own library cannot be loaded.

    Returns:
        The `torch.library.Library` that holds the declarations (the cache of this function keeps it
        alive; without it they would vanish), or None where nothing had to be done.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if "torchvision" in sys.modules or spec is None or spec.origin is None:
        return None
    libraries = sorted(Path(spec.origin).parent.glob("_C*.so"))
    try:
        for library in libraries:
            torch.ops.load_library(str(library))
    except OSError as error:
        logger.info("torchvision's operators are declared, not loaded: %s", error)
        declarations = torch.library.Library("torchvision", "FRAGMENT")
        declarations.define(f"nms{_NMS}")
        declarations.define(f"qnms{_NMS}")
        return declarations
    return None
