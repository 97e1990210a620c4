import io
from dataclasses import replace

import av
import numpy as np
import pytest

from curation.errors import BadSource
from training.data.picture import converter, pixels, view
from training.data.random_numbers import generator
from training.data.reading import STILL_S, Timeline, read_frames, read_image, read_still

SIZE = (72, 128)
WHOLE = view(*SIZE, SIZE, fit="cover", draw=None)
CODERS = {
    "b-frames": {"preset": "medium", "bf": "3", "x264-params": "b-pyramid=normal"},
    "no-b-frames": {"preset": "veryfast", "bf": "0"},
    "open-gop": {"preset": "medium", "x264-params": "open-gop=1:keyint=12"},
    "one-keyframe": {"preset": "veryfast", "g": "1000"},
    "mpeg4": {"codec": "mpeg4", "bf": "2", "qscale": "3"},
    "hevc": {"codec": "libx265", "preset": "ultrafast", "x265-params": "log-level=none:pools=none"},
}


def decoded(data: bytes) -> list[tuple[float, np.ndarray]]:
    """Every frame with its time, decoded the plain way."""
    with av.open(io.BytesIO(data), format="mp4") as container:
        return [
            (frame.time, pixels(frame, WHOLE, 0, converter()).copy())
            for frame in container.decode(video=0)
        ]


@pytest.fixture(scope="module", params=CODERS.values(), ids=list(CODERS))
def film(request, tmp_path_factory, make_video) -> bytes:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    options = {"threads": "1", **request.param}
    codec = options.pop("codec", "libx264")
    scenes = [("red", 48, 3), ("teal", 24, 7)]
    make_video(path, scenes, size=SIZE[::-1], codec=codec, options=options)
    return path.read_bytes()


@pytest.mark.parametrize("start_s", [0.0, 0.31, 1.0, 1.9])
def test_frames_are_bit_for_bit_those_of_decoding_everything(film, start_s):
    times = [start_s + number / 8 for number in range(8)]
    everything = decoded(film)
    wanted = [min(everything, key=lambda each: (abs(each[0] - t), each[0]))[1] for t in times]
    read = read_frames(film, times, WHOLE).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(read, np.stack(wanted))


def test_frames_of_a_variable_rate_are_the_nearest_in_time(tmp_path, encode_video, texture):
    times_s = [0, 0.04, 0.5, 0.52, 0.9, 1.3, 1.31, 2.0]
    frames = [texture(f"teal/{n}", SIZE[::-1]) for n in range(len(times_s))]
    path = encode_video(tmp_path / "vfr.mp4", frames, times_s=times_s, options={"bf": "0"})
    everything = [frame for _, frame in decoded(path.read_bytes())]
    read = read_frames(path.read_bytes(), [0.25, 0.75, 1.25, 1.75], WHOLE)
    for image, expected in zip(read.permute(0, 2, 3, 1).numpy(), (1, 4, 5, 7), strict=True):
        assert np.array_equal(image, everything[expected])


def test_of_two_equally_near_frames_the_earlier_is_taken():
    film = Timeline(
        shown=np.array([10, 20, 30]), keyframes=np.array([10]), end=40, time_base_s=0.125
    )
    assert film.nearest([0.625, 1.25, 1.875, 2.5]) == [10, 20, 20, 30]
    standing = replace(film, end=90)
    assert standing.nearest([9.9]) == [30]  # 80 ticks of 1/8 s from the first frame
    one = Timeline(shown=np.array([7]), keyframes=np.array([7]), end=8, time_base_s=1.0)
    assert one.nearest([0.0, 0.0]) == [7, 7]


def test_stills_lie_close_behind_keyframes_and_vary(film):
    everything = [frame.tobytes() for _, frame in decoded(film)]
    with av.open(io.BytesIO(film), format="mp4") as container:
        keyframes = [p.pts * p.time_base for p in container.demux(video=0) if p.is_keyframe]
    found = set()
    for number in range(60):
        (still,) = read_still(film, generator(0, "start", number), WHOLE).permute(0, 2, 3, 1)
        found.add(everything.index(still.numpy().tobytes()))
    assert len(found) > 15
    for frame in found:
        assert min(frame / 24 - key for key in keyframes if key <= frame / 24 + 1e-9) <= STILL_S


def test_a_clip_that_ends_early_is_unreadable(film):
    with pytest.raises(BadSource, match=r"last frame at 2\.958 s, 3\.500 s wanted"):
        read_frames(film, [0.0, 3.5], WHOLE)


def test_bytes_that_are_no_film_are_unreadable(film):
    for data in (b"", b"\0" * 1000, film[: len(film) // 2], b"#EXTM3U\nfile.mp4\n"):
        with pytest.raises(BadSource):
            read_frames(data, [0.0], WHOLE)


def test_a_damaged_film_is_unreadable_not_grey(film):
    damaged = bytearray(film)
    begin = film.index(b"mdat") + 1000
    damaged[begin : begin + 3000] = bytes(3000)
    with pytest.raises(BadSource):
        read_frames(bytes(damaged), [number / 8 for number in range(20)], WHOLE)


def test_an_image_is_what_pillow_reads(texture):
    from PIL import Image

    picture = Image.fromarray(texture("gold", SIZE[::-1]))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, subsampling=0)
    read = read_image(buffer.getvalue(), WHOLE)
    theirs = np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
    assert read.shape == (1, 3, *SIZE)
    assert np.abs(read[0].permute(1, 2, 0).numpy().astype(int) - theirs).mean() < 1.5


def test_bytes_that_are_no_image_are_unreadable():
    for data in (b"", b"GIF89a" + bytes(100)):
        with pytest.raises(BadSource):
            read_image(data, WHOLE)
