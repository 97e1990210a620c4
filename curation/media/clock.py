"""A stream's clock made steady, and its packets read on past what is broken.

Clocks of real streams start anywhere, restart where two recordings were laid end to end, leap where
one was paused, and stand wrong in single packets that were damaged on the way. Here every packet is
given the time at which it would come if the film went on at its own pace. A stream without a jump
keeps its timestamps as they are.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from curation.media.losses import Hurt, Losses

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = [
    "BROADCAST",
    "UNTIMED",
    "ClockShift",
    "Entry",
    "Hurt",
    "Lead",
    "Refresh",
    "SteadyClock",
    "packets_of",
]

BROADCAST = frozenset({"mpegts", "mpeg"})
"""Demuxers of streams that are cut, joined and lost on the way: their clock is the sender's."""
UNTIMED = frozenset({"avi"})
"""Demuxers of containers without times of showing. Those that libav makes up are wrong for packed
B-frames and for H.264; but frames come out in order, at the pace of the times of decoding."""
CLOCK_JUMP_S = 10.0
"""A broadcast clock that steps further ahead has jumped (ffmpeg's `dts_delta_threshold`)."""
PAUSE_S = 900.0
"""In other containers a long step is a picture that stands, as screen recorders write it, up to
this length (ours: a quarter of an hour)."""
MAX_REORDER_FRAMES = 16
"""A frame is shown at most this many later than it is decoded: H.264's most."""
LOOK_AHEAD = 8
"""Packets by which it is told whether a jump is one, which picture comes first behind it, and whom
libav meant by its flags; more B-frames in a row are rare."""
JOINT_PACKETS = 2
"""Where two recordings were laid end to end, the count of transport packets restarts, and libav flags
a packet so shortly before the keyframe with which the second begins: the one it was reading, or the
one before it, which its parser had not yet let go."""
STEPS = 16
"""Distances of packets by which the pace is known."""
MOST_STEPS = 1.5
"""Distance of two packets between which none is missing."""
MAX_LEAD = 1024
"""Packets without timestamps at the start of a film that are read before the first is decoded."""
MAX_READ_ERRORS = 100
"""Errors of the demuxer, each followed by another packet, after which the file is given up."""


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Packets of a stream, on past errors of the demuxer; without the empty one at the end.

    Raises:
        BadSource: as the file under libav raised it.
    """
    import av

    for _ in range(MAX_READ_ERRORS):
        size_bytes = 0
        demuxer = container.demux(stream)
        while True:
            try:
                packet = next(demuxer)
            except MemoryError:
                raise
            except av.error.FFmpegError:
                break
            except (StopIteration, IndexError):
                # PyAV 18.1 stumbles at the end over streams that turned up in mid-file.
                return
            if packet.size:
                size_bytes += packet.size
                yield packet
        if not size_bytes:
            return  # it does not get over this place


def _has_no_time(packet: Packet[Any]) -> bool:
    return packet.pts is None and packet.dts is None


class Refresh:
    """Mark of a packet, and of its frame, at which decoding can begin.

    It is a keyframe, or a picture made from others with which a sender begins to make all parts of the
    picture anew, one after the other.
    """


@dataclass(frozen=True, slots=True)
class ClockShift:
    """From this packet on the steady clock is the stream's own plus a number of ticks.

    Args:
        packet: number of the first such packet among those of the stream, from 0.
        ticks: to add.
    """

    packet: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A packet at which decoding can begin.

    Args:
        packet: its number among those of the stream, from 0.
        pts: its steady time of showing.
    """

    packet: int
    pts: int


@dataclass(frozen=True, slots=True)
class Lead:
    """Frames at the start of a film that have no timestamps; those behind have them.

    Args:
        num_frames: how many.
        end: time of showing of the first frame behind them.
        step: ticks from frame to frame.
    """

    num_frames: int
    end: int
    step: Fraction

    def at(self, frame: int) -> int:
        """Time of showing of one of them, as if the film had gone at its pace from the start."""
        return self.end - round((self.num_frames - frame) * self.step)


class SteadyClock:
    """Rewrites the timestamps of packets, in the order of decoding, to a clock without jumps.

    A packet *fits* where it goes on from the one before it: not earlier, and no further ahead than
    a film pauses. If one does not fit and the next goes on from it, the clock has jumped; if the
    next goes on from the one before, this one's timestamps were damaged, and are made up; but where
    a keyframe steps back a little and all that follow go on from it, two recordings overlap.

    Packets that were damaged on the way have a `Hurt` as their `opaque`, and so have the frames that
    come out of them, if the decoder's context has `copy_opaque` set.

    Args:
        container: demuxer by its libav name.
        stream: whose packets they are.
        goes_on_at: steady time of showing of the first packet, where another recording lies before it.
    """

    def __init__(
        self, container: str, stream: VideoStream, *, goes_on_at: int | None = None
    ) -> None:
        self._goes_on_at = goes_on_at
        self._base = Fraction(stream.time_base or 1)
        self._untimed = container in UNTIMED
        self._is_broadcast = container in BROADCAST
        # Elsewhere times of decoding are made up, by libav or by whoever wrote the file, and jump
        # some packets later than the pictures do.
        self._by_decoding = container in UNTIMED | BROADCAST
        longest_s = CLOCK_JUMP_S if self._is_broadcast else PAUSE_S
        self._longest = round(Fraction(longest_s) / self._base)
        rate = stream.guessed_rate or stream.average_rate
        self._exact_step = 1 / (Fraction(rate) * self._base) if rate else Fraction(1)
        self._stated_step = max(1, round(self._exact_step))
        self._steps: deque[int] = deque(maxlen=STEPS)
        self._recent: deque[int] = deque(maxlen=MAX_REORDER_FRAMES)
        self._last: int | None = None
        self._top: int | None = None
        self._joint: int | None = None
        self._losses = Losses(self._steps, self._longest) if self._is_broadcast else None
        self.lead: Lead | None = None
        """Known once the first packet was read."""
        self.shifts: list[ClockShift] = []
        """Where the clock jumps, in order."""
        self.edges: list[int] = []
        """Steady time of showing of the first packet after each jump."""

    @property
    def step(self) -> int:
        """Distance of two frames hereabouts, in ticks, at least 1."""
        forward = sorted(step for step in self._steps if step > 0)
        if len(forward) < STEPS // 4:
            return self._stated_step
        # In the order of decoding some step over those that are shown before them.
        return max(1, round(forward[len(forward) // 2] * len(forward) / len(self._steps)))

    @property
    def end(self) -> int:
        """Steady time at which a recording behind the packets so far would go on."""
        return 0 if self._top is None else self._top + self.step

    def read(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        """The same packets, timestamps rewritten, a few behind."""
        window = deque(itertools.islice(packets, LOOK_AHEAD))
        if window and _has_no_time(window[0]):
            self._read_lead(window, packets)
        number = 0
        while window:
            packet = window.popleft()
            window.extend(itertools.islice(packets, 1))
            self._place(packet, number, window)
            yield packet
            number += 1

    def _read_lead(self, window: deque[Packet[Any]], packets: Iterator[Packet[Any]]) -> None:
        """Read on to the first packets that have times."""
        while all(map(_has_no_time, window)) and len(window) < MAX_LEAD:
            window.extend(each := list(itertools.islice(packets, 1)))
            if not each:
                return
        window.extend(itertools.islice(packets, MAX_REORDER_FRAMES))
        times = [packet.pts for packet in window if packet.pts is not None]
        if times:
            num_frames = sum(map(_has_no_time, window))
            self.lead = Lead(num_frames, min(times), self._exact_step)

    def _place(self, packet: Packet[Any], number: int, following: deque[Packet[Any]]) -> None:
        """Rewrite one packet's timestamps."""
        if self._goes_on_at is not None and self._shown(packet) is not None:
            self._top, self._goes_on_at = self._goes_on_at - self.step, None
            self._jump(packet, number, following)
        time = self._time(packet)
        is_next = time is None or self._fits(time)
        if is_next and not packet.is_corrupt:
            later = []  # nothing to be decided by them
        else:
            later = [t for each in following if (t := self._time(each)) is not None]
        if time is not None and not is_next:
            is_restart = packet.is_keyframe and len(later) > 0 and self._is_steady([time, *later])
            is_one = not later or self._fits(later[0]) or not self._follows(later[0], time)
            if is_one and not is_restart:
                self._make_up(packet)
                return
            self._jump(packet, number, following)
        elif number == self._joint:
            if self._shown(packet) is None:
                self._joint = number + 1  # what begins without a time is placed by the next one
            else:
                self._jump(packet, number, following)
        if packet.is_corrupt and time is not None and self._ends_a_recording(time, following):
            self._joint = number + self._to_keyframe(following)
            packet.is_corrupt = False
        # Those before a jump are flagged only because the count of packets restarts there too.
        if packet.is_corrupt and (time is None or all(self._follows(t, time) for t in later)):
            packet.opaque = Hurt()
        if time is not None:
            self._learn(time)
        self._mark(packet, time, following)
        self._shift(packet)

    def _mark(self, packet: Packet[Any], time: int | None, following: deque[Packet[Any]]) -> None:
        """Tell the decoder's frames what a packet is: hurt, or one with which a refresh begins."""
        if self._losses is not None:
            times = [self._time(each) for each in following]
            self._losses.mark(packet, time, following, times, self.step)
        if packet.is_keyframe and packet.opaque is None:
            packet.opaque = Refresh()

    def _to_keyframe(self, following: deque[Packet[Any]]) -> int:
        """How many packets on the next keyframe is; more than are known if it is not among them."""
        keyframes = (n for n, each in enumerate(following, 1) if each.is_keyframe)
        return next(keyframes, LOOK_AHEAD + 1)

    def _ends_a_recording(self, time: int, following: deque[Packet[Any]]) -> bool:
        """Whether a packet is flagged only for the recording that begins behind it.

        No frame is missing then, what follows begins with a keyframe, and is whole; of its first pictures
        some may be decoded before the last ones of the recording that ends. If the packet was hit all the
        same, its decoder says so.
        """
        place = self._to_keyframe(following)
        if not self._is_broadcast or place > JOINT_PACKETS:
            return False
        if any(each.is_corrupt for each in following):
            return False
        times = [time, *(self._time(each) for each in following)]
        before, behind = (
            [t for t in part if t is not None] for part in (times[:place], times[place:])
        )
        if not self._is_steady(before) or not self._is_steady(behind) or not behind:
            return False
        return -MAX_REORDER_FRAMES <= (behind[0] - before[-1]) / self.step <= MOST_STEPS

    def _is_steady(self, times: list[int]) -> bool:
        """Whether times of decoding follow each other at the film's pace, no frame missing."""
        pairs = itertools.pairwise(times)
        return self._by_decoding and all(0 <= b - a <= MOST_STEPS * self.step for a, b in pairs)

    def _time(self, packet: Packet[Any]) -> int | None:
        return packet.dts if self._by_decoding else packet.pts

    def _fits(self, time: int) -> bool:
        """Whether a packet of this (unshifted) time goes on from the last ones."""
        if self._last is None:
            return True
        if self._by_decoding:
            return self._follows(time, self._last)
        if time > self._last + self._longest:
            return False
        lowest = min(self._recent)
        return time >= lowest or time >= lowest - MAX_REORDER_FRAMES * self.step

    def _follows(self, time: int, before: int) -> bool:
        """Whether two packets could come one after the other."""
        if self._by_decoding:
            return 0 <= time - before <= self._longest
        return abs(time - before) <= self._longest

    def _learn(self, time: int) -> None:
        """Keep the distance to the packet before, 0 where this one is shown earlier."""
        if self._last is not None:
            self._steps.append(max(0, time - self._last))
        self._recent.append(time)
        self._last = time if self._last is None else max(time, self._last)

    def _jump(self, packet: Packet[Any], number: int, following: deque[Packet[Any]]) -> None:
        """The clock jumps at this packet: what comes goes on behind what has been shown."""
        assert self._top is not None, "the first packet fits"
        reach = MAX_REORDER_FRAMES * self.step
        shown = self._shown(packet)
        assert shown is not None, "it has the time by which the jump was seen"
        times = [t for each in following if (t := self._shown(each)) is not None]
        first = min([shown, *(t for t in times if shown - reach <= t)])
        steady = self._top + self.step
        self.shifts.append(ClockShift(number, steady - first))
        self.edges.append(steady)
        self._last = None
        self._recent.clear()

    def _shown(self, packet: Packet[Any]) -> int | None:
        """When its picture is shown, on the stream's own clock."""
        return packet.dts if self._untimed or packet.pts is None else packet.pts

    def _shift(self, packet: Packet[Any]) -> None:
        pts, dts = packet.pts, packet.dts
        if self._untimed:
            pts = None
        elif self._is_broadcast and pts is not None and not self._can_be_shown(pts, dts):
            pts, packet.opaque = None, Hurt()
        shift = self.shifts[-1].ticks if self.shifts else 0
        if shift or pts != packet.pts:
            packet.pts = None if pts is None else pts + shift
            packet.dts = None if dts is None else dts + shift
        self._show(packet)

    def _can_be_shown(self, pts: int, dts: int | None) -> bool:
        return dts is None or 0 <= pts - dts <= MAX_REORDER_FRAMES * self.step

    def _show(self, packet: Packet[Any]) -> None:
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is not None and (self._top is None or shown > self._top):
            self._top = shown

    def _make_up(self, packet: Packet[Any]) -> None:
        """Timestamps for a packet whose own are damaged: none to show it, one step to decode it."""
        assert self._last is not None, "the first packet fits"
        self._last += self.step
        packet.dts = self._last + (self.shifts[-1].ticks if self.shifts else 0)
        packet.pts = None
        packet.opaque = Hurt()
        self._show(packet)
