"""Re-encode a clip to H.264 so that it holds exactly its frames.

One ffmpeg process a clip: it seeks to the keyframe before the clip, decodes, drops what lies
before the first frame by timestamp, and stops at the end. All that costs 1.05 to 1.18x of encoding
the same four seconds at 720p in one go (benchmarks/export.py), so one process for many clips could
win a tenth, and would lose them all when one fails.
"""

from __future__ import annotations

import io
import re
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from curation.errors import ROOM_IS_DUE, BadSource, MachineFault
from curation.export.clips.settings import Clip, ExportConfig, Media, fitted_size
from curation.media.clock import UNTIMED, Lead
from curation.media.colour import UNSPECIFIED, Colour, is_see_through
from curation.media.guard import isolated_command
from curation.media.orientation import Orientation
from curation.media.probe import ffmpeg_input_args
from curation.media.recordings import WHOLE, Recording
from curation.media.tone import cube

FROM_FIRST_KEYFRAME = "noise=amount=0:drop=if(key\\,st(0\\,1)*0\\,not(ld(0)))"
"""Bitstream filter that drops packets until a keyframe. Decoders of MPEG-4 and its like take the
first packet after a failed seek for a picture and paint the next ones onto grey; so they become
missing frames, which are noticed."""
RISING = "max(PTS,if(isnan(PREV_OUTPTS),PTS,PREV_OUTPTS+1))"
"""Times of frames as `curation.decode.timeline` has them: one that is not later than the frame
before it is put one tick after that."""
SCALING = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
MAX_MEMORY_BYTES = 4 * 1024**3
"""Private memory of one ffmpeg process: 4K with x264's slowest preset takes about half."""
TABLE = "sdr.cube"
"""The tone mapping, laid beside the clip for ffmpeg's filter lut3d."""
LONGEST_ERROR_S = 0.005
"""Seconds by which a clip's length may miss the plan: rounding to the ticks of the MP4 file."""
MAX_FILE_BYTES = 4 * 1024**3
"""Largest clip file; a member of a USTAR archive could be twice that."""
_DISK_FULL = re.compile("No space left on device|Disk quota exceeded")


def cut_exact(file: BinaryIO, clip: Clip, config: ExportConfig, scratch: Path) -> Media:
    """Re-encode the frames with ``start_pts <= pts < end_pts``; their spacing in time is kept.

    Pictures come out upright, with square pixels, even sides and 4:2:0 chroma at 8 bit, all their
    tags written. High dynamic range and wide primaries become BT.709 SDR (`curation.media.tone`);
    other colour spaces and ranges stay as they are. There is no audio.

    Raises:
        BadSource: 'frames_missing', 'encoder_failed' or 'too_slow'.
        MachineFault: the scratch folder is full.
    """
    if clip.colour.is_mapped:
        (scratch / TABLE).write_text(cube(clip.colour))
    start_s = clip.start_pts * clip.time_base
    # A demuxer that seeks by decoding time can land on a keyframe whose leading pictures are the
    # clip's first frames (open GOPs in MP4), or behind it (transport streams); the count shows it.
    # Then the search begins ten seconds, the longest usual GOP, earlier, at last at the beginning.
    # A palette comes with the first packet of a file, and is lost to those who seek.
    from_begin = clip.shifts or clip.lead or clip.pixel_format == "pal8"
    for seek_s in (None,) if from_begin else (start_s, start_s - 10, None):
        media = _made(file, clip, config, scratch, seek_s)
        if media is None or media.num_frames != clip.num_frames:
            continue
        if abs(media.duration_s - clip.duration_s) <= LONGEST_ERROR_S:
            return media
        # Where a picture stands for long, frames that wait for later ones make an MP4 file begin
        # to decode long before it shows anything; its lengths no longer add up.
        media = _made(file, clip, config, scratch, seek_s, b_frames=False)
        assert media is not None, "there were frames before"
        return media
    found = 0 if media is None else media.num_frames
    raise BadSource("frames_missing", f"{found} frames where {clip.num_frames} were measured")


def _made(
    file: BinaryIO,
    clip: Clip,
    config: ExportConfig,
    scratch: Path,
    seek_s: Fraction | None,
    *,
    b_frames: bool = True,
) -> Media | None:
    """One try; None if no frame came out."""
    target = scratch / "clip.mp4"
    command = isolated_command(
        _command(file, clip, config, target, seek_s, b_frames=b_frames),
        memory_bytes=MAX_MEMORY_BYTES,
        written_bytes=MAX_FILE_BYTES,
        readable=[Path(f"/proc/self/fd/{file.fileno()}").readlink()],
        writable=[scratch],
    )
    _run(command, file, config.deadline_s(clip), scratch)
    with target.open("rb") as made:
        return measured(made.read())


def _command(
    file: BinaryIO,
    clip: Clip,
    config: ExportConfig,
    target: Path,
    seek_s: Fraction | None,
    *,
    b_frames: bool,
) -> list[str]:
    """The argument list, first the binary."""
    import ffmpeg
    import imageio_ffmpeg

    width, height = fitted_size(*clip.kept_size, config.max_short_side_px)
    base = f"{clip.time_base.numerator}/{clip.time_base.denominator}"
    length = clip.end_pts - clip.start_pts
    opening: dict[str, object] = {
        **ffmpeg_input_args(clip.container, is_part=clip.recording != WHOLE),
        "threads": 1,
        "flags": "+unaligned",  # as in the decoding pass
        "noautorotate": None,  # `_turned` does it, by quarters as everywhere
        # What the container cuts off (clean apertures, Matroska's cropping) no keyframe lacks.
        "apply_cropping": "codec",
        "copyts": None,
        "fflags": "+genpts",  # likewise, by PyAV
        "bsf:v": _packet_filters(clip),
    }
    if seek_s is not None:
        # Nine digits: no container has a time base finer than a nanosecond.
        opening |= {
            "ss": f"{float(seek_s):.9f}",
            "seek_timestamp": 1,
            "noaccurate_seek": None,
        }
    source = ffmpeg.input(_address(file, clip.recording), **opening)[str(clip.stream_index)]
    frames = (
        _deinterlaced(source, clip.interlaced)
        .filter("settb", base)
        .filter("setpts", _times(clip.lead))
        .filter("trim", start_pts=clip.start_pts, end_pts=clip.end_pts)
    )
    frames = _turned(frames, clip.orientation)
    frames = _coloured(frames, clip, (width, height), target.parent / TABLE)
    encoding = {
        "c:v": "libx264",
        "preset": config.x264_preset,
        "crf": config.crf,
        "threads": config.threads,
        **({} if b_frames else {"bf": 0}),
        "fps_mode": "passthrough",
        "enc_time_base": base,
        # The clip begins at 0. This is done to packets, for the filter that does it to frames makes
        # x264 believe in one frame a tick, and ask for a decoder of the highest level. A frame does
        # not know when the next one would have come, and in an MP4 only the duration of the last
        # packet counts: each is told the time that is left.
        "bsf:v": f"setts=pts=PTS-({clip.start_pts}):dts=DTS-({clip.start_pts})"
        f":duration={length}+STARTDTS-DTS",
        "flags:v": "+bitexact",
        "fflags": "+bitexact",
        "map_metadata": -1,
        "map_chapters": -1,
        "movflags": "+faststart",
        "format": "mp4",
    }
    command: list[str] = (
        ffmpeg.output(frames, str(target), **encoding)
        .global_args("-hide_banner", "-nostdin", "-loglevel", "error", "-filter_threads", "1")
        # Damage behind the clip is none of its business: its frames are counted.
        .global_args("-max_error_rate", "1")
        .overwrite_output()
        .compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())
    )
    return command


def _address(file: BinaryIO, recording: Recording) -> str:
    """By its descriptor, for the name may have come to mean another file."""
    address = f"file:/dev/fd/{file.fileno()}"
    if recording == WHOLE:
        return address
    return f"subfile,,start,{recording.begin},end,{recording.end or 0},,:{address}"


def _deinterlaced(frames: Any, interlaced: str) -> Any:
    """As many frames as come in, at their times, without combs.

    Film under pulldown is put together again from its fields. The frame that pulldown shows twice
    stays: without it the times would no longer be the source's.
    """
    if interlaced == "progressive":
        return frames
    which = "all"
    if interlaced == "telecined":
        frames = frames.filter("fieldmatch", combmatch="full")
        which = "interlaced"  # what fieldmatch leaves and marks
    return frames.filter("bwdif", mode="send_frame", parity="auto", deint=which)


def _turned(frames: Any, shown: Orientation) -> Any:
    """Frames as they are shown, and without the matrix that asked for it."""
    frames = frames.filter("sidedata", mode="delete", type="DISPLAYMATRIX")
    if shown.mirrored:
        frames = frames.filter("hflip")
    if shown.swaps_sides:
        return frames.filter("transpose", "clock" if shown.turn_deg == 90 else "cclock")
    return frames.filter("hflip").filter("vflip") if shown.turn_deg else frames


def _times(lead: Lead | None) -> str:
    """When each frame is shown, those without timestamps at the start of the film as well."""
    if lead is None:
        return RISING
    at = f"{lead.end}-round(({lead.num_frames}-N)*{lead.step.numerator}/{lead.step.denominator})"
    return f"if(lt(N,{lead.num_frames}),{at},{RISING})"


def _laid_on_white(frames: Any) -> Any:
    """Frames that can be seen through, before a white wall; they become planes of colours."""
    import ffmpeg

    split = frames.filter("format", "gbrap").filter_multi_output("split")
    white = split[0].filter("lutrgb", r=255, g=255, b=255, a=255)
    return ffmpeg.overlay(white, split[1], format="gbrp", shortest=1)


def _coloured(frames: Any, clip: Clip, size: tuple[int, int], table: Path) -> Any:
    """The frames in the size and the colours of the clip, 4:2:0 at 8 bit, all tags written."""
    (width, height), colour = size, clip.colour
    if colour.matrix != "gbr":
        scale = "full" if colour.full_range else "limited"
        frames = frames.filter("setparams", colorspace=colour.matrix, range=scale)
    frames = frames.filter("crop", *_kept(clip))
    if is_see_through(clip.pixel_format):
        frames = _laid_on_white(frames)
        colour = Colour("gbr", True, "bt709", "bt709")
    is_rgb = colour.is_mapped or colour.matrix == "gbr"
    to_yuv = {"out_color_matrix": "bt709", "out_range": "limited"}
    if colour.is_mapped:
        frames = (
            frames.filter("scale", width, height, flags=SCALING)
            .filter("format", "gbrp16le")
            .filter("lut3d", file=str(table), interp="tetrahedral")
            .filter("scale", flags=SCALING, **to_yuv)
        )
    else:
        frames = frames.filter("scale", width, height, flags=SCALING, **(to_yuv if is_rgb else {}))
    return (
        frames.filter("setsar", 1).filter("format", "yuv420p").filter("setparams", **_tags(colour))
    )


def _kept(clip: Clip) -> tuple[str, str, str, str]:
    """Width, height, left and top of what is kept of a decoded picture, whose pixels may not be square."""
    if clip.area is None:
        return "iw-mod(iw,2)", "ih-mod(ih,2)", "0", "0"
    left, top, width, height = clip.area
    return (
        f"2*floor(iw*{width}/{clip.width}/2)",
        f"2*floor(ih*{height}/{clip.height}/2)",
        f"2*round(iw*{left}/{clip.width}/2)",
        f"2*round(ih*{top}/{clip.height}/2)",
    )


def _tags(colour: Colour) -> dict[str, str]:
    """What the clip says of its colours, in words of the filter `setparams`."""
    if colour.is_mapped or colour.matrix == "gbr":
        names = dict.fromkeys(("colorspace", "color_primaries", "color_trc"), "bt709")
        return names | {"range": "limited"}
    usual = "bt709" if colour.matrix == "bt709" else "smpte170m"
    return {
        "colorspace": colour.matrix,
        "color_primaries": usual if colour.primaries == UNSPECIFIED else colour.primaries,
        "color_trc": usual if colour.transfer == UNSPECIFIED else colour.transfer,
        "range": "full" if colour.full_range else "limited",
    }


def _packet_filters(clip: Clip) -> str:
    """What is done to packets before they are decoded: the same as in the decoding pass."""
    if clip.shifts:
        # Packets are counted by the first filter, since the second leaves some out.
        shift, before = "0", 0
        for each in clip.shifts:
            shift += f"+gte(N\\,{each.packet})*({each.ticks - before})"
            before = each.ticks
        from_entry = f"noise=amount=0:drop=lt(n\\,{clip.first_packet})"
        return f"setts=pts=PTS+{shift}:dts=DTS+{shift},{from_entry}"
    if clip.container in UNTIMED:
        return f"setts=pts=NOPTS,{FROM_FIRST_KEYFRAME}"
    return FROM_FIRST_KEYFRAME


def _run(command: list[str], file: BinaryIO, deadline_s: float, scratch: Path) -> None:
    """Run ffmpeg to its end or its deadline, without our environment, for it may hold secrets."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(file.fileno(),),
        env={},
        cwd="/",
    ) as process:
        try:
            _, errors = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired as error:
            raise BadSource("too_slow", f"not cut after {deadline_s:.0f} s") from error
        finally:
            process.kill()  # no effect on one that has ended
    if process.returncode != 0:
        said = errors.decode(errors="replace")
        if full := _DISK_FULL.search(said):
            raise MachineFault(
                f"ffmpeg could not write its clip to {scratch}: {full[0]}{ROOM_IS_DUE}"
            )
        last = said.strip().splitlines()[-1:]
        raise BadSource("encoder_failed", f"exit code {process.returncode}: {''.join(last)}")


def measured(data: bytes) -> Media | None:
    """Measure one of our MP4 files, where a packet is a frame; None if it holds no frame."""
    import av

    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        if not container.streams.video:
            return None
        stream = container.streams.video[0]
        durations = [packet.duration or 0 for packet in container.demux(stream) if packet.size]
        base = stream.time_base
        width, height = stream.codec_context.width, stream.codec_context.height
    if not durations or base is None:
        return None
    duration_s = float(sum(durations) * base)
    return Media(
        extension="mp4",
        data=data,
        num_frames=len(durations),
        fps=len(durations) / duration_s if duration_s else None,
        duration_s=duration_s,
        width=width,
        height=height,
    )
