"""The average of the weights over training, in fp32.

A shadow in 16 bits never moves: with decay 0.9999 a step changes it by a ten-thousandth of the
difference, which bf16 and fp16 round away. So 16-bit weights are refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """theta' <- d theta' + (1 - d) theta, once an optimizer step, for the trainable parameters.

    The decay warms up, d = min(decay, (1 + n) / (10 + n)) after n updates, so that the average is
    not held back by the first weights. Shards stay shards: each rank averages its own.

    Args:
        net: The network; its trainable parameters are fp32.
        decay: In [0, 1); the half-life is ln 2 / (1 - decay) steps.

    Raises:
        ValueError: A trainable parameter has 16 bits.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self._followed = {n: p for n, p in net.named_parameters() if p.requires_grad}
        for name, parameter in self._followed.items():
            if parameter.dtype != torch.float32:
                raise ValueError(
                    f"the average needs fp32 weights, {name} has {parameter.dtype}: at decay "
                    f"{decay} a 16-bit average never moves"
                )
        self.shadow = {name: p.detach().clone() for name, p in self._followed.items()}
        device = next(iter(self._followed.values())).device
        self.num_updates = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, found_inf: Tensor | None = None) -> None:
        """Move towards the weights.

        Args:
            found_inf: 1.0 where the optimizer left this step out, else 0.0, on the weights' device;
                then the average stays too, without the host knowing.
        """
        taken = 1.0 if found_inf is None else 1.0 - found_inf.double()
        n = self.num_updates.double()
        decay = torch.minimum(torch.full_like(n, self.decay), (1 + n) / (10 + n))
        step = ((1 - decay) * taken).float()
        shadows = [_local(shadow) for shadow in self.shadow.values()]
        weights = [_local(parameter.detach()) for parameter in self._followed.values()]
        differences = torch._foreach_sub(weights, shadows)
        torch._foreach_mul_(differences, step)  # a tensor: the host need not know its value
        torch._foreach_add_(shadows, differences)
        self.num_updates += torch.as_tensor(taken).to(self.num_updates)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and weights; twice is nothing."""
        for name, parameter in self._followed.items():
            shadow, weight = _local(self.shadow[name]), _local(parameter.data)
            kept = weight.clone()
            weight.copy_(shadow)
            shadow.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Shadow and count; the tensors themselves, so that a checkpoint can load into them."""
        return {"shadow": dict(self.shadow), "num_updates": self.num_updates}


def _local(tensor: Tensor) -> Tensor:
    """This rank's shard of a sharded tensor; the tensor itself otherwise."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()
