import pytest
import torch
from einops import rearrange

from training.models import layout

CASES = [
    (layout.fold_frames, (2, 3, 4, 5, 6), (), {}),
    (layout.unfold_frames, (8, 3, 5, 6), (2,), {"b": 2}),
    (layout.to_tokens, (2, 3, 5, 6), (), {}),
    (layout.from_tokens, (2, 30, 3), (5,), {"h": 5}),
    (layout.by_sample, (8, 5, 3), (2,), {"b": 2}),
    (layout.by_frame, (2, 4, 5, 3), (), {}),
    (layout.to_time_lines, (2, 4, 5, 3), (), {}),
    (layout.from_time_lines, (10, 4, 3), (2,), {"b": 2}),
    (layout.split_heads, (2, 5, 12), (3,), {"h": 3}),
    (layout.merge_heads, (2, 3, 5, 4), (), {}),
]


@pytest.mark.parametrize(
    ("function", "shape", "args", "sizes"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_every_layout_is_the_einops_pattern_of_its_docstring(function, shape, args, sizes):
    x = torch.randn(shape)
    pattern = function.__doc__.split("``")[1]
    assert torch.equal(function(x, *args), rearrange(x, pattern, **sizes))


def test_frames_of_a_channels_last_tensor_fold_without_a_copy():
    frames = torch.randn(6, 4, 5, 7).contiguous(memory_format=torch.channels_last)
    video = layout.unfold_frames(frames, 2)
    assert video.shape == (2, 4, 3, 5, 7)
    assert layout.to_tokens(layout.fold_frames(video)).data_ptr() == frames.data_ptr()


def test_a_temporal_layer_sees_the_video_frames_only():
    x = torch.randn(1, 2, 5, 3, 3)
    out = layout.on_video_frames(lambda video: video * 0, x, layout.FrameLayout(1, 3, 2))
    assert not out[:, :, :3].any()
    assert torch.equal(out[:, :, 3:], x[:, :, 3:])
