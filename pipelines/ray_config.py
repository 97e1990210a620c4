"""How a training run is laid on a Ray cluster; flags, so it waits for neither Ray nor torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RayConfig:
    """How a run is laid on a Ray cluster."""

    address: str = "local"
    """'local' starts a private Ray on this machine; 'auto' or an address joins a cluster."""
    num_workers: int = 1
    """Ranks: processes that train together, at least 1."""
    min_workers: int | None = None
    """Go on with as few ranks where nodes are lost, and grow again; None waits for all."""
    gpus: bool = False
    """Give each rank a GPU."""
    cpus_per_worker: float = 1.0
    """Processor cores of each rank, its reading processes included."""
    max_failures: int = 3
    """Times that lost ranks are replaced; the run goes on from its newest checkpoint."""
    storage: str | None = None
    """Folder or prefix of Ray Train's own records, seen by every node; None is ~/ray_results."""

    def __post_init__(self) -> None:
        """Raise ValueError for workers that cannot be."""
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {self.num_workers}")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.num_workers:
            raise ValueError(f"min_workers must be 1 to num_workers, got {self.min_workers}")
        if self.cpus_per_worker <= 0:
            raise ValueError(f"cpus_per_worker must be positive, got {self.cpus_per_worker}")
        if self.max_failures < 0:
            raise ValueError(f"max_failures must be at least 0, got {self.max_failures}")
