"""Let timm be imported where torchvision's C++ operators cannot load.

timm imports torchvision, and torchvision's wheels are built for CUDA torch. Beside a CPU torch its
operators do not load and its import fails with "operator torchvision::nms does not exist".
Declaring the names is enough: none is ever called here. With a CUDA torch nothing is touched.
"""

from __future__ import annotations

import importlib.util

import torch

_OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "qroi_align",
    "ps_roi_align",
    "roi_pool",
    "ps_roi_pool",
    "deform_conv2d",
    "_roi_align_backward",
    "_ps_roi_align_backward",
    "_roi_pool_backward",
    "_ps_roi_pool_backward",
    "_deform_conv2d_backward",
)

_library: torch.library.Library | None = None


def declare_missing_operators() -> None:
    """Declare torchvision's operators, once, for a CPU torch that has a torchvision beside it."""
    global _library
    if _library is not None or torch.version.cuda is not None:
        return
    if importlib.util.find_spec("torchvision") is None or hasattr(torch.ops.torchvision, "nms"):
        return
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        _library.define(f"{name}(Tensor a) -> Tensor")
