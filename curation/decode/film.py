"""The frames of a film in the order in which they are shown, with what is wrong with them.

A decoder's error costs the frames that it is about, not the film: reading goes on with the next
packet. What was hit is said of each frame, and damage is a stretch of its own: what a decoder
makes up hides cuts, and what is whole before and behind it can be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from curation.decode.gaps import EvenClock
from curation.decode.measuring import DecodeConfig
from curation.decode.scenes import Boundary
from curation.decode.timeline import MOST_ON_A_TICK
from curation.errors import BadSource
from curation.media.clock import (
    BROADCAST,
    MAX_REORDER_FRAMES,
    UNTIMED,
    Hurt,
    Refresh,
    SteadyClock,
    packets_of,
)
from curation.media.probe import check_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

LOST_STEPS = 3
"""Frames hereabouts lie this many times closer than two between which some were lost."""
PAUSE_S = 0.5
"""A broadcast does not pause: a longer step of its clock is loss, whatever is flagged."""
LONGEST_HOLE_S = 0.25
"""A longer stretch of lost frames ends a scene: what is whole before and behind it can be kept."""
B_REFERENCES = frozenset({"h264", "hevc"})
"""Decoders of codecs in which other frames are made from B-frames too (pyramids)."""
REFRESHES = 3
"""Intra refreshes that begin behind damage until all of the picture has been made anew: the first may
be half done where the damage is, and one may end a few frames behind the beginning of the next."""
SHOWS_AGAIN = frozenset({"libdav1d", "av1"})
"""Decoders of codecs that can show a keyframe again."""
MAX_UNSEEN = 1024
"""Sizes of packets that are held for frames still to come."""
MAX_ERRORS = 10_000
"""Packets in a row that the decoder refuses before the file is given up: minutes of film, in
seconds of work."""


class Shot(NamedTuple):
    """One frame."""

    frame: VideoFrame
    """As PyAV gives it; its `pts` is steady, and None where nothing is known."""
    is_damaged: bool
    """Whether it, or one that it is made from, was damaged, or frames before it are missing."""
    num_bytes: int | None
    """Size of its packets; None where none has its time, as in AVI."""
    edge: Boundary | None
    """Why a stretch begins with it, if one does: 'discontinuity' where the clock jumps or whole groups
    of pictures are missing, 'damage' where frames are missing, and where damage begins or ends."""


@dataclass(slots=True)
class _Seen:
    """A frame that came out of the decoder, while what follows may still speak about it."""

    frame: VideoFrame
    num_bytes: int | None
    is_damaged: bool
    is_jump: bool
    """Whether the clock jumps before it, or its group follows on one that is missing."""
    is_behind_hole: bool
    """Whether more is missing before it than a scene may lack."""
    is_key: bool
    """Whether it is made from no other, and of its own time."""
    is_between: bool
    """Whether it is a B-frame."""
    is_behind_pause: bool
    """Whether nothing is shown for long before it, though the clock is even."""


class Film:
    """Reads a stream from its first to its last frame, within the limits.

    Args:
        container: as of `curation.media.probe.open_video`.
        stream: as of `curation.media.probe.picture_stream`.
        config: limits, threads, loop filter.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, config: DecodeConfig
    ) -> None:
        self._config, self.limits = config, config.limits
        self._num_stated = stream.frames
        base = Fraction(stream.time_base or 1)
        self._base_s = float(base)
        self._max_ticks = int(Fraction(config.limits.max_duration_s) / base)
        self._is_broadcast = container.format.name in BROADCAST
        self._is_untimed = container.format.name in UNTIMED
        self._size: tuple[int, int] | None = None
        self._num_frames = self._num_jumps = 0
        self._first: int | None = None
        self._last: int | None = None
        self._was_damaged = self._has_begun = False
        self.last_error: str | None = None
        """What the decoder said last, for a person."""
        self.num_damaged = 0
        """Damaged frames so far."""
        self.num_lost = 0
        """Frames that never came: refused by the decoder, or missing on the clock."""
        self._open(container, stream, None)

    def _open(self, container: InputContainer, stream: VideoStream, goes_on_at: int | None) -> None:
        """Begin with a recording."""
        from av.video.frame import PictureType

        self._context = stream.codec_context
        self._context.thread_type, self._context.thread_count = "FRAME", self._config.threads
        self._context.copy_opaque = True
        if self._config.skip_loop_filter != "none":
            options = {"skip_loop_filter": self._config.skip_loop_filter}
            self._context.options = {**self._context.options, **options}
        self._keeps_b = self._context.name in B_REFERENCES
        self._b_type = int(PictureType.B)
        self._shows_again = self._context.name in SHOWS_AGAIN
        # A broadcast never pauses, and in AVI a picture that is shown again is a packet without bytes.
        has_pauses = not (self._is_broadcast or self._is_untimed)
        self._even = EvenClock(self._base_s) if has_pauses else None
        self._clock = SteadyClock(container.format.name, stream, goes_on_at=goes_on_at)
        self._packets = self._clock.read(packets_of(container, stream))
        self._num_edges = self._num_errors = self._num_unplaced = self._num_gone = 0
        self._num_late = self._num_refreshes = 0
        self._is_hurt = self._is_refresh = False
        self._refused_pts: int | None = None
        self._torn_pts: int | None = None
        self._waiting: list[_Seen] = []
        self._bytes_at: dict[int, int] = {}

    def go_on(self, container: InputContainer, stream: VideoStream) -> None:
        """Read another recording next, behind the one that has ended: iterate again.

        Raises:
            BadSource: 'undecodable' if its clock has other ticks.
        """
        if float(Fraction(stream.time_base or 1)) != self._base_s:
            raise BadSource("undecodable", f"a clock of {stream.time_base} s")
        self._num_jumps = self.num_clock_jumps
        self._open(container, stream, self._clock.end)

    @property
    def num_clock_jumps(self) -> int:
        """How often the stream's clock jumped, so far."""
        return self._num_jumps + len(self._clock.shifts)

    def __iter__(self) -> Iterator[Shot]:
        """Every frame.

        Raises:
            BadSource: 'undecodable' where the decoder gives up, and 'too_long', 'too_many_pixels'.
        """
        refused = 0
        for packet in self._packets:
            before = self._num_errors
            self._weigh(packet)
            for frame in self._decoded(packet):
                yield from self._shots(frame)
                refused = 0
            refused += self._num_errors - before
            if refused > MAX_ERRORS:
                raise BadSource("undecodable", f"{refused} packets in a row are no pictures")
        last = self._decoded(None)
        if self._even is not None:
            self._torn_pts = self._even.torn([each.pts for each in last if each.pts is not None])
        for frame in last:
            yield from self._shots(frame)
        yield from self._released()
        self.num_lost += self._num_unplaced + self._num_errors

    def _weigh(self, packet: Packet[VideoStream]) -> None:
        """Note the size of a packet for the frame that will have its time."""
        if packet.pts is None:
            return
        if len(self._bytes_at) > MAX_UNSEEN:  # packets whose frames never came
            self._bytes_at.clear()
        self._bytes_at[packet.pts] = self._bytes_at.get(packet.pts, 0) + packet.size

    def cut_off(self) -> None:
        """The file ends before its container says: what is stated beyond is lost, at least one."""
        self.num_lost = max(self.num_lost, self._num_stated - self._num_frames, 1)

    def _decoded(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Frames that come out when a packet, or the end, goes in; none where it is refused."""
        import av

        try:
            return self._context.decode(packet)
        except MemoryError:
            raise  # libav's is one of its own errors too; the guard tells what it means
        except av.error.FFmpegError as error:
            self._num_errors += 1
            self.last_error = str(error)[:200]
            if packet is not None and packet.pts is not None:
                self._refused_pts = max(packet.pts, self._refused_pts or packet.pts)
            return []

    def _shots(self, frame: VideoFrame) -> Iterator[Shot]:
        """Take the next frame; give those of which it is known by now what is wrong with them.

        Frames between two others are decoded after both: those that wait were made from this one,
        if they are B-frames and it was hit.
        """
        hurt_before = self._is_hurt
        seen = self._seen(frame)
        if seen.is_behind_pause:
            yield from self._released()
        if self._num_gone and not seen.is_between:
            self._settle(seen)
        if self._waiting and self._is_hurt and (not hurt_before or seen.is_key):
            for each in self._waiting:
                each.is_damaged = True
        if seen.is_jump or not seen.is_between or len(self._waiting) >= MAX_REORDER_FRAMES:
            yield from self._released()
        if seen.is_between:
            self._waiting.append(seen)
        else:
            yield self._shot(seen)

    def _settle(self, seen: _Seen) -> None:
        """Whether a pause of the clock was one: what follows on a group that is missing is a keyframe.

        Those that are shown before it, and wait, are made from what is missing.
        """
        num_gone, self._num_gone = self._num_gone, 0
        if not seen.is_key:
            assert self._even is not None, "it told of the pause"
            self._even.pause()
            return
        self._lose(num_gone)
        seen.is_jump = seen.is_behind_pause
        for each in self._waiting:
            each.is_damaged = True

    def _lose(self, num_frames: int) -> None:
        """Frames are missing on the clock; those whose packets were refused are among them."""
        self.num_lost += num_frames
        self._num_unplaced = max(0, self._num_unplaced - num_frames)

    def _released(self) -> Iterator[Shot]:
        """Those that wait."""
        waiting, self._waiting = self._waiting, []
        yield from map(self._shot, waiting)

    def _seen(self, frame: VideoFrame) -> _Seen:
        """What is wrong with a frame by itself and by those before it.

        It was hit, lies behind a hole, or is made from one that was hit. Damage is carried on to the next
        picture that is made from no other. A B-frame keeps its own to itself where none is made from one.
        A decoder holds frames back: what it refuses may belong behind a picture that comes out only now.
        """
        num_bytes = None if frame.pts is None else self._bytes_at.pop(frame.pts, None)
        if self._is_untimed:
            frame.pts, frame.duration = frame.dts, 0
        lead = self._clock.lead
        if lead is not None and frame.pts is None and self._num_frames < lead.num_frames:
            frame.pts = lead.at(self._num_frames)
        pts, opaque = frame.pts, frame.opaque
        # AV1 can show a keyframe again, later on; where packets are missing that says nothing.
        is_key = bool(frame.key_frame) and not (self._shows_again and opaque is None)
        is_between = frame.pict_type == self._b_type
        self._check(frame, pts)
        is_jump = self._is_after_jump(pts)
        is_behind_pause = False
        self._num_unplaced += self._num_errors
        missing_s = 0.0 if is_jump else self._missing_s(pts)
        if self._even is not None and pts is not None:
            num_gone = self._even.missing(pts)
            is_behind_pause = num_gone > 0 and not is_jump and not missing_s
            self._num_gone = num_gone if is_behind_pause else self._num_gone
        is_behind_hole = missing_s > LONGEST_HOLE_S
        has_hole = (missing_s > 0 or self._num_errors > 0) and not is_jump
        if is_behind_hole and is_key:
            has_hole = False  # an edge says so, and what begins here needs nothing from before
        is_hit = frame.is_corrupt or isinstance(opaque, Hurt)
        if is_key:
            is_refused_behind = self._is_refused_behind(pts)
            self._is_hurt = is_hit or is_refused_behind
            if not is_refused_behind:
                self.num_lost += self._num_unplaced
                self._num_unplaced = 0
        elif has_hole or (is_hit and (self._keeps_b or not is_between)):
            self._is_hurt, self._num_refreshes = True, 0
        elif self._is_hurt:
            self._look_for_refresh(isinstance(opaque, Refresh))
        is_torn = self._torn_pts is not None and pts is not None and pts >= self._torn_pts
        is_damaged = is_hit or has_hole or is_torn or self._is_hurt or self._is_late(pts)
        self._num_errors = 0
        self._last = self._last if pts is None else pts
        self._num_frames += 1
        return _Seen(
            frame,
            num_bytes,
            is_damaged,
            is_jump,
            is_behind_hole,
            is_key,
            is_between,
            is_behind_pause,
        )

    def _shot(self, seen: _Seen) -> Shot:
        """A frame of which all is known, and whether a stretch begins with it."""
        edge: Boundary | None = None
        if self._has_begun:
            is_change = seen.is_behind_hole or seen.is_damaged != self._was_damaged
            edge = "discontinuity" if seen.is_jump else "damage" if is_change else None
        self._has_begun, self._was_damaged = True, seen.is_damaged
        self.num_damaged += seen.is_damaged
        return Shot(seen.frame, seen.is_damaged, seen.num_bytes, edge)

    def _check(self, frame: VideoFrame, pts: int | None) -> None:
        """Hold a frame against the limits."""
        size = frame.width, frame.height
        if size != self._size:
            self._size = size
            check_size(*size, self.limits)
        if self._num_frames >= self.limits.max_frames:
            raise BadSource("too_long", f"more than {self.limits.max_frames} frames")
        if pts is None:
            return
        if self._first is None:
            self._first = pts
        if pts - self._first > self._max_ticks:
            seconds = (pts - self._first) * self._base_s
            raise BadSource(
                "too_long", f"over {seconds:.0f} s, the limit is {self.limits.max_duration_s} s"
            )

    def _is_after_jump(self, pts: int | None) -> bool:
        """Whether this is the first frame behind one more jump of the clock."""
        before = self._num_edges
        while (
            pts is not None
            and self._num_edges < len(self._clock.edges)
            and self._clock.edges[self._num_edges] <= pts
        ):
            self._num_edges += 1
        return self._num_edges > before

    def _missing_s(self, pts: int | None) -> float:
        """Seconds of frames that are missing before this one; 0 where a picture only stands."""
        if pts is None or self._last is None:
            return 0.0
        gap = pts - self._last
        gap_s = gap * self._base_s
        is_loss = self._num_errors > 0 or self._is_hurt or (self._is_broadcast and gap_s > PAUSE_S)
        if not is_loss or gap <= LOST_STEPS * (step := self._clock.step):
            return 0.0
        self._lose(max(0, gap // step - 1))
        return gap_s

    def _is_late(self, pts: int | None) -> bool:
        """Whether a frame comes out at a time that is over: its timestamp cannot be true.

        Less than a frame's length before the last one it may be: clocks are coarse, and writers
        round or repeat a time. The timeline tells such frames apart. With more of them in a row than
        a coarse clock makes, the clock does not run.
        """
        if pts is None or self._last is None or pts > self._last:
            self._num_late = 0
            return False
        self._num_late += 1
        return self._num_late > MOST_ON_A_TICK or pts <= self._last - self._clock.step

    def _look_for_refresh(self, is_refresh: bool) -> None:
        """End damage where all parts of the picture have been made anew one after the other."""
        if is_refresh and not self._is_refresh:  # containers may flag all pictures
            self._num_refreshes += 1
            self._is_hurt = self._num_refreshes < REFRESHES
        self._is_refresh = is_refresh

    def _is_refused_behind(self, pts: int | None) -> bool:
        """Whether a packet was refused whose picture is due after this time."""
        return self._refused_pts is not None and pts is not None and pts < self._refused_pts
