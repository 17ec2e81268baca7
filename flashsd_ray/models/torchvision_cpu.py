"""Makes `import torchvision` work where only its Python transforms are wanted.

It knows torchvision's import order and torch's operator registry; it knows nothing of transformers, whose video
processors are the reason it exists.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from threading import Lock

import torch

logger = logging.getLogger(__name__)

# The operators whose fake kernels torchvision registers while it is imported, whether or not they were compiled.
OPERATOR_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

_lock = Lock()
_stand_ins: list[torch.library.Library] = []  # a Library that is collected takes its schemas with it


def ensure_torchvision_imports() -> bool:
    """`import torchvision` works where the package is installed; returns whether it does.

    The video processors of transformers 5 import `torchvision.transforms.v2.functional`, which is pure Python. But
    `import torchvision` also registers fake kernels for its compiled operators, and a wheel linked against CUDA cannot
    load those beside a CPU build of torch: the import then dies with "operator torchvision::nms does not exist",
    although no transform needs that operator. So the schemas that are missing, and only those, are declared first.
    They have no kernels: calling `torchvision.ops.nms` still fails, and says so.

    Nothing changes where torchvision is absent, already imported, or able to load its operators.

    Effects:
        torchvision is imported when it is usable; when it is not, none of its modules stay in `sys.modules`.
    """
    with _lock:
        if sys.modules.get("torchvision") is None:
            package = _package_folder()
            if package is None:
                return False
            _forget_partial_imports()
            if not _operators_load(package):
                _declare_missing_operators()
        return _import_succeeds()


def _package_folder() -> Path | None:
    """Returns where torchvision is installed, or None where it is absent or its import is blocked."""
    try:
        spec = importlib.util.find_spec("torchvision")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def _operators_load(package: Path) -> bool:
    """Returns whether torch can load the compiled operators; having been loaded, they are registered."""
    libraries = [*package.glob("_C*.so"), *package.glob("_C*.pyd"), *package.glob("_C*.dylib")]
    try:
        for library in libraries:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]  # torch has no annotation there
    except (OSError, RuntimeError):
        return False
    return bool(libraries)


def _declare_missing_operators() -> None:
    """Every operator that torchvision's import refers to has a schema; those that had one keep theirs."""
    stand_in = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch has no annotation there
    for name, schema in OPERATOR_SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            stand_in.define(schema)  # type: ignore[no-untyped-call]  # torch has no annotation there
    _stand_ins.append(stand_in)


def _import_succeeds() -> bool:
    """Returns whether torchvision and its functional transforms are imported now; if not, no module of it is left."""
    try:
        importlib.import_module("torchvision.transforms.v2.functional")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        _forget_partial_imports()
        logger.warning("torchvision unusable", extra={"reason": f"{type(error).__name__}: {error}"})
        return False
    return True


def _forget_partial_imports() -> None:
    """No module of torchvision is left in `sys.modules`, so that the next import starts afresh."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
