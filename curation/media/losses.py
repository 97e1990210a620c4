"""What a broadcast lost on the way, by its clock.

A transport stream counts its packets to sixteen, and libav flags where the count is wrong; sixteen lost in
a row it does not show. But a clock that is even elsewhere has a gap there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet

LOSS_STEPS = 1.75
"""A longer step in a stream that keeps its pace is loss; half a step more is a field shown twice."""
EVEN_SHARE, FEWEST_STEPS = 0.75, 4
"""Of the last distances so many are alike where a sender has a pace that it keeps."""
DROP_STEPS = 3.5
"""Longer gaps no sender makes by leaving out a picture or two."""
MOST_SILENT = 2
"""Of sixteen losses one leaves no sign but the gap. After so many gaps without any more than with one
it is the sender that leaves pictures out, as cameras do that are short of light or time."""


class Hurt:
    """Mark of a packet, and of its frame, that was damaged on the way; each has its own."""


class Losses:
    """Marks the packets on both sides of a gap in the stream, whether or not libav flagged it.

    The packet before a gap may have lost its end; those behind it are made from what is not there, up to
    the next keyframe, and with it those that are shown before it.

    Args:
        steps: the last distances of packets in ticks, as they are known at each call.
        longest: step in ticks beyond which a clock does not pause but jumps.
    """

    def __init__(self, steps: Sequence[int], longest: int) -> None:
        self._steps, self._longest = steps, longest
        self._is_behind_loss = False
        self._reset_at: int | None = None
        self._num_flagged = self._num_silent = 0

    def mark(
        self,
        packet: Packet[Any],
        time: int | None,
        following: Sequence[Packet[Any]],
        times: Sequence[int | None],
        step: int,
    ) -> None:
        """Take the next packet in the order of decoding.

        Args:
            packet: whose `opaque` becomes a `Hurt` where it is hit.
            time: of decoding it.
            following: the packets behind it.
            times: theirs.
            step: from picture to picture.
        """
        if packet.is_keyframe:
            self._reset_at = packet.pts if self._is_behind_loss else None
            self._is_behind_loss = False
        elif self._reset_at is not None and packet.pts is not None:
            if packet.pts < self._reset_at:
                packet.opaque = Hurt()
            else:
                self._reset_at = None
        if self._is_behind_loss:
            packet.opaque = Hurt()
        if time is not None and (gap := self._gap(time, times, step)):
            is_flagged = packet.is_corrupt or any(each.is_corrupt for each in following)
            if self._is_loss(gap, is_flagged=is_flagged):
                self._is_behind_loss = True
                packet.opaque = Hurt()

    def _gap(self, time: int, times: Sequence[int | None], step: int) -> float:
        """Steps from a packet to the next one, where pictures are missing between; else 0.

        A packet without a time behind the gap lost it there: the next one that has one tells.
        """
        later = [each for each in times if each is not None]
        if not later:
            return 0
        ahead = later[0] - time
        num_untimed = times.index(later[0])
        if not (LOSS_STEPS + num_untimed) * step < ahead <= self._longest:
            return 0
        steps = [*self._steps, *(b - a for a, b in itertools.pairwise(later))]
        num_even = sum(abs(each - step) <= step / 8 for each in steps)
        is_even = num_even >= max(EVEN_SHARE * len(steps), FEWEST_STEPS)
        return ahead / step if is_even else 0

    def _is_loss(self, gap: float, *, is_flagged: bool) -> bool:
        """Whether the way, and not the sender, made this gap."""
        if is_flagged or gap > DROP_STEPS:
            self._num_flagged += is_flagged
            return True
        self._num_silent += 1
        return self._num_silent <= MOST_SILENT + self._num_flagged
