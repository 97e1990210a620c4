"""open_nsfw: the input as its authors make it, and the real network."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from curation.stations.keyframe_images import open_keyframe
from curation.stations.safety import Safety, SafetyConfig, nsfw_input
from curation.stations.station import check_output
from curation.weights.catalog import OPEN_NSFW


def test_the_input_is_bgr_with_the_mean_taken_off():
    pixels = nsfw_input(Image.new("RGB", (300, 200), (10, 120, 230)))
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[100, 100], [230 - 104, 120 - 117, 10 - 123], atol=4)


def test_the_picture_is_squeezed_not_cropped_to_a_square():
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[:, 256:] = 255  # the right half, whatever the shape
    seen = nsfw_input(Image.fromarray(pixels))
    assert (seen[:, :100] < 0).all()
    assert (seen[:, 124:] > 0).all()


@pytest.mark.embedded
def test_scores_are_the_networks_own_and_the_highest_keyframe_counts(
    keyframe_clips, noise_picture, real_weight
):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(real_weight(OPEN_NSFW)))
    clips = keyframe_clips([[noise_picture(1), noise_picture(2)], [], [noise_picture(3)]])
    station = Safety(SafetyConfig(batch_size=2))
    station.setup()
    added = station(clips)
    check_output(station, clips, added)
    wanted = []
    for row in clips["keyframes"].to_pylist():
        inputs = [nsfw_input(open_keyframe(data))[None] for data in row]
        both = [session.run(None, {"input:0": pixels})[0][0] for pixels in inputs]
        assert all(sum(pair) == pytest.approx(1.0, abs=1e-5) for pair in both)
        wanted.append(max((float(pair[1]) for pair in both), default=None))
    scores = added["nsfw_score"].to_pylist()
    assert scores[1] is None
    assert [scores[0], scores[2]] == pytest.approx([wanted[0], wanted[2]], abs=1e-5)
    assert added.equals(station(clips))


@pytest.mark.parametrize("name", ["batch_size", "num_threads"])
def test_settings_out_of_range_are_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        SafetyConfig(**{name: 0})
