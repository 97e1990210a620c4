"""The frames of a film in the order in which they are shown, with what is wrong with them.

A decoder's error costs the frames that it is about, not the film: reading goes on with the next
packet. What was hit is said of each frame, and damage is a stretch of its own: what a decoder
makes up hides cuts, and what is whole before and behind it can be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from curation.decode.measuring import DecodeConfig
from curation.decode.scenes import Boundary
from curation.decode.timeline import MOST_ON_A_TICK
from curation.errors import BadSource
from curation.media.clock import BROADCAST, UNTIMED, SteadyClock, packets_of
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
MAX_ERRORS = 10_000
"""Packets in a row that the decoder refuses before the file is given up: minutes of film, in
seconds of work."""


class Shot(NamedTuple):
    """One frame."""

    frame: VideoFrame
    """As PyAV gives it; its `pts` is steady, and None where nothing is known."""
    is_damaged: bool
    """Whether it, or one that it is made from, was damaged, or frames before it are missing."""
    edge: Boundary | None
    """Why a stretch begins with it, if one does: 'discontinuity' where the clock jumps, 'damage'
    where frames are missing, and where damage begins or ends."""


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
        self._limits = config.limits
        self._context = stream.codec_context
        self._context.thread_type, self._context.thread_count = "FRAME", config.threads
        self._context.copy_opaque = True
        if config.skip_loop_filter != "none":
            options = {"skip_loop_filter": config.skip_loop_filter}
            self._context.options = {**self._context.options, **options}
        self._num_stated = stream.frames
        base = Fraction(stream.time_base or 1)
        self._base_s = float(base)
        self._max_ticks = int(Fraction(config.limits.max_duration_s) / base)
        self._is_broadcast = container.format.name in BROADCAST
        self._is_untimed = container.format.name in UNTIMED
        self._clock = SteadyClock(container.format.name, stream)
        self._packets = self._clock.read(packets_of(container, stream))
        self._size: tuple[int, int] | None = None
        self._num_frames = self._num_edges = self._num_errors = 0
        self._first: int | None = None
        self._last: int | None = None
        self._num_late = 0
        self._is_hurt = self._was_damaged = False
        self.last_error: str | None = None
        """What the decoder said last, for a person."""
        self.num_damaged = 0
        """Damaged frames so far."""
        self.num_lost = 0
        """Frames that never came: refused by the decoder, or missing on the clock."""

    @property
    def num_clock_jumps(self) -> int:
        """How often the stream's clock jumped, so far."""
        return len(self._clock.shifts)

    def __iter__(self) -> Iterator[Shot]:
        """Every frame.

        Raises:
            BadSource: 'undecodable' where the decoder gives up, and 'too_long', 'too_many_pixels'.
        """
        refused = 0
        for packet in self._packets:
            before = self._num_errors
            for frame in self._decoded(packet):
                yield self._shot(frame)
                refused = 0
            refused += self._num_errors - before
            if refused > MAX_ERRORS:
                raise BadSource("undecodable", f"{refused} packets in a row are no pictures")
        for frame in self._decoded(None):
            yield self._shot(frame)
        self.num_lost += self._num_errors

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
            return []

    def _shot(self, frame: VideoFrame) -> Shot:
        """Say what is wrong with a frame."""
        if self._is_untimed:
            frame.pts, frame.duration = frame.dts, 0
        lead = self._clock.lead
        if lead is not None and frame.pts is None and self._num_frames < lead.num_frames:
            frame.pts = lead.at(self._num_frames)
        pts = frame.pts
        self._check(frame, pts)
        is_jump = self._is_after_jump(pts)
        missing_s = 0.0 if is_jump else self._missing_s(pts)
        is_long = missing_s > LONGEST_HOLE_S
        has_hole = (missing_s > 0 or self._num_errors > 0) and not (is_jump or is_long)
        is_damaged = self._is_damaged(frame, has_hole=has_hole) or self._is_late(pts)
        edge: Boundary | None = None
        if self._num_frames:
            is_change = is_long or is_damaged != self._was_damaged
            edge = "discontinuity" if is_jump else "damage" if is_change else None
        self._was_damaged = is_damaged
        self.num_damaged += is_damaged
        self.num_lost += self._num_errors
        self._num_errors = 0
        self._last = self._last if pts is None else pts
        self._num_frames += 1
        return Shot(frame, is_damaged, edge)

    def _check(self, frame: VideoFrame, pts: int | None) -> None:
        """Hold a frame against the limits."""
        size = frame.width, frame.height
        if size != self._size:
            self._size = size
            check_size(*size, self._limits)
        if self._num_frames >= self._limits.max_frames:
            raise BadSource("too_long", f"more than {self._limits.max_frames} frames")
        if pts is None:
            return
        if self._first is None:
            self._first = pts
        if pts - self._first > self._max_ticks:
            seconds = (pts - self._first) * self._base_s
            raise BadSource(
                "too_long", f"over {seconds:.0f} s, the limit is {self._limits.max_duration_s} s"
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
        self.num_lost += max(0, gap // step - 1 - self._num_errors)
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

    def _is_damaged(self, frame: VideoFrame, *, has_hole: bool) -> bool:
        """Whether a frame was hit, lies behind a hole, or is made from one that was hit.

        Damage is carried on to the next picture that is made from no other. A B-frame keeps its own
        to itself: few are made from one.
        """
        is_hit = frame.is_corrupt or frame.opaque is not None
        if frame.key_frame:
            self._is_hurt = is_hit
        elif has_hole or (is_hit and not _is_b(frame)):
            self._is_hurt = True
        return is_hit or has_hole or self._is_hurt


def _is_b(frame: VideoFrame) -> bool:
    """Whether a frame is one that is made from frames before and after it."""
    from av.video.frame import PictureType

    return bool(frame.pict_type == PictureType.B)
