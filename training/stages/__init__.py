"""What each network of the cascade is fed, conditioned on and asked for.

A stage draws its random tensors in the process that reads the sample (`draw`), each from a stream
named by seed, step and position, and turns a batch into the network's arguments on the device
(`feed`). `stage_of` picks the stage of a run.
"""

from training.stages.feed import encoded
from training.stages.stage import Companions, Feed, Stage, check_stage, stage_of

__all__ = ["Companions", "Feed", "Stage", "check_stage", "encoded", "stage_of"]
