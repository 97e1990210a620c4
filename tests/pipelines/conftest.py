"""What tests of the pipelines share."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _ray_ends_with_the_file() -> Iterator[None]:
    """A Ray that a command started in this process is not left to the tests of another file."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
