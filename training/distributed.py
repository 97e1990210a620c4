"""The processes of a run: one, or those that torchrun or Ray Train started.

The trainer is told nothing but rank, number of ranks and device; what it learns does not depend on
them but for the order in which floats are summed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from training.models.unet import UNet

TIMEOUT = timedelta(minutes=10)  # a rank that does not answer for so long ends the run


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    """0 to ``world_size - 1``; rank 0 logs and commits."""
    world_size: int
    """Number of processes."""
    device: torch.device
    """Where this one computes."""

    @property
    def is_first(self) -> bool:
        """Whether this process logs and commits for all."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def largest(self, values: Tensor) -> Tensor:
        """Largest over the ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, on every rank; for few and small ones."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def wait_for_all(self) -> None:
        """Return when every rank has come here."""
        if self.world_size > 1:
            dist.barrier()


@contextlib.contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the processes that were started together; leave them at the end.

    torchrun says in the environment who this process is; Ray Train has joined already; otherwise
    the process is alone.
    """
    if dist.is_initialized():
        yield _ranks(dist.get_rank(), dist.get_world_size())
        return
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield _ranks(0, 1)
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield _ranks(dist.get_rank(), world_size)
    finally:
        dist.destroy_process_group()


def _ranks(rank: int, world_size: int) -> Ranks:
    if not torch.cuda.is_available():
        return Ranks(rank, world_size, torch.device("cpu"))
    local = int(os.environ.get("LOCAL_RANK", rank % torch.cuda.device_count()))
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return Ranks(rank, world_size, device)


def shard(net: UNet) -> None:
    """Spread parameters over the ranks, level by level (FSDP2); in place.

    Master weights and gradients stay fp32; the precision of the passes is autocast's.
    """
    policy = MixedPrecisionPolicy()
    for block in [*net.down_blocks, net.mid_block, *net.up_blocks]:
        fully_shard(block, mp_policy=policy)
    fully_shard(net, mp_policy=policy)


class Replica:
    """The network as the forward pass calls it: itself, a DDP copy, or FSDP shards.

    Args:
        net: The network, on its device, trainable parameters marked.
        ranks: The processes.
        sharded: Whether `shard` was called on it.
        some_unused: Whether a batch may leave parameters without gradient.
    """

    def __init__(self, net: UNet, ranks: Ranks, *, sharded: bool, some_unused: bool) -> None:
        self._net = net
        self._sharded = sharded
        self._ddp: DistributedDataParallel | None = None
        if ranks.world_size > 1 and not sharded:
            self._ddp = DistributedDataParallel(
                net,
                device_ids=None if ranks.device.type == "cpu" else [ranks.device],
                find_unused_parameters=some_unused,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    def __call__(self, *arguments: Any, **named: Any) -> Tensor:
        """Forward."""
        module: nn.Module = self._ddp or self._net
        out: Tensor = module(*arguments, **named)
        return out

    @contextlib.contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Sum gradients over the ranks only in the last micro-batch of a step."""
        if self._ddp is not None and not last:
            with self._ddp.no_sync():
                yield
            return
        if self._sharded:
            self._net.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield
