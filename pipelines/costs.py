"""What a run took, as a table."""

from __future__ import annotations

from rich.table import Table

from pipelines.run import driver_memory_bytes
from pipelines.stages import StageCost


def costs_table(costs: dict[str, StageCost]) -> Table:
    """Time and memory of each stage of a run."""
    table = Table(title="what it took")
    table.add_column("stage", no_wrap=True)
    for header in ("units", "wall s", "CPU s", "peak MB"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("counted")
    for name, cost in costs.items():
        counts = {what: n for what, n in sorted(cost.counts.items()) if n and what != "micro-USD"}
        counted = ", ".join(f"{n:,} {what}" for what, n in counts.items())
        table.add_row(
            name,
            str(cost.units),
            f"{cost.wall_s:.1f}",
            f"{cost.cpu_s:.1f}",
            f"{cost.peak_memory_bytes / 1e6:.0f}",
            counted,
        )
    driver_mb = driver_memory_bytes() / 1e6
    table.caption = f"peak MB: of one worker with its children; the driver has {driver_mb:.0f}"
    return table
