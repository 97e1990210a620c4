"""The shim, in processes of their own: an import happens once a process."""

from __future__ import annotations

import subprocess
import sys


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_and_open_clip_import_after_the_shim():
    out = _python(
        "from curation.weights.torchvision_shim import ensure_torchvision\n"
        "ensure_torchvision()\n"
        "import torchvision, open_clip\n"
        "from torchvision import transforms\n"
        "print(open_clip.__version__)"
    )
    assert out


def test_calling_it_twice_or_after_torchvision_changes_nothing():
    out = _python(
        "from curation.weights.torchvision_shim import ensure_torchvision\n"
        "first = ensure_torchvision()\n"
        "assert ensure_torchvision() is first\n"
        "import torchvision\n"
        "ensure_torchvision.cache_clear()\n"
        "print(ensure_torchvision())"
    )
    assert out == "None"


def test_importing_the_module_imports_no_torch():
    out = _python(
        "import sys, curation.weights.torchvision_shim\n"
        "print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    assert out == "[]"
