"""What holds for all tests of training; its corpus is `small_corpus` of tests/conftest.py."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """Tiny tensors gain nothing from more threads."""
    torch.set_num_threads(1)
