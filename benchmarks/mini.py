"""Whether lavie-mini shows what it is asked for: samples held against the clips that it learnt from.

    python benchmarks/mini.py mini/corpus mini/runs --num-prompts 50

A prompt is the short caption of a clip. Its sample is compared with every stretch of as many frames of
every clip by peak signal-to-noise ratio: *own* is the best among the clips of that caption, *other* the
best among all others. Right is a sample whose own is the better one; the margin is by how many dB.
Motion is the mean change between neighbouring frames, of the sample over that of its own best stretch.
*Ceiling* is what the autoencoder alone leaves of that stretch. A plain grey picture has about 12 dB to any.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from curation.corpus.shards import read_index, read_sample
from curation.corpus.store import Store
from inference.text_to_video import LaViePipeline
from inference.weights import exported_weights
from training.autoencoder import psnr
from training.data.picture import view
from training.data.reading import read_frames
from training.models.exported import SampleShape


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip that was learnt from."""

    caption: str
    frames_TCHW: Tensor
    """-1 to 1, at the pace and size of the network."""

    def stretches(self, length: int) -> Tensor:
        """All runs of as many frames, ``[N, length, 3, H, W]``."""
        return self.frames_TCHW.unfold(0, length, 1).movedim(-1, 1)


@dataclass(frozen=True, slots=True)
class Found:
    """What one sample is like."""

    prompt: str
    own_db: float
    other_db: float
    motion: float
    ceiling_db: float


def clips_of(corpus: str, shape: SampleShape) -> list[Clip]:
    """All clips long enough for a sample."""
    store, clips = Store(corpus), []
    for row in read_index(store, "default").to_pylist():
        count = 1 + int((row["num_frames"] - 1) / row["fps"] * shape.fps)
        if count < shape.num_frames:
            continue
        shown = view(
            row["height"], row["width"], (shape.height, shape.width), fit="cover", draw=None
        )
        media = read_sample(store, "default", row).media
        frames = read_frames(media, [number / shape.fps for number in range(count)], shown)
        clips.append(Clip(row["caption"], frames.float() / 127.5 - 1))
    return clips


def nearest(sample_TCHW: Tensor, clip: Clip) -> tuple[float, Tensor]:
    """Least mean squared error over a clip's stretches, and the stretch."""
    stretches = clip.stretches(len(sample_TCHW))
    errors_N = (stretches - sample_TCHW).square().flatten(1).mean(dim=1)
    best = int(errors_N.argmin())
    return float(errors_N[best]), stretches[best]


def motion(video_TCHW: Tensor) -> float:
    """Mean absolute change between neighbouring frames."""
    return float(video_TCHW.diff(dim=0).abs().mean())


def compared(pipeline: LaViePipeline, prompt: str, sample_TCHW: Tensor, clips: list[Clip]) -> Found:
    """One sample against all clips."""
    own = min((nearest(sample_TCHW, c) for c in clips if c.caption == prompt), key=lambda n: n[0])
    other = min(nearest(sample_TCHW, c)[0] for c in clips if c.caption != prompt)
    stretch_BCTHW = own[1].transpose(0, 1)[None]
    autoencoder = pipeline.autoencoder
    mean, _ = autoencoder.encode_moments(stretch_BCTHW)
    back = autoencoder.decode(autoencoder.scale * mean).clamp(-1, 1)
    ceiling = psnr(float((back - stretch_BCTHW).square().mean()))
    moves = motion(sample_TCHW) / max(motion(own[1]), 1e-6)
    return Found(prompt, psnr(own[0]), psnr(other), moves, ceiling)


def samples(
    pipeline: LaViePipeline, prompts: list[str], shape: SampleShape, steps: int, guidance: float
) -> Iterator[Tensor]:
    """A video of each prompt, seeded by its place in the list."""
    for number, prompt in enumerate(prompts):
        video_BTCHW = pipeline(
            prompt,
            height=shape.height,
            width=shape.width,
            num_frames=shape.num_frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(number),
            output_type="pt",
        ).frames
        yield video_BTCHW[0] * 2 - 1


def main() -> None:
    """Print a line for each prompt, then the whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus")
    parser.add_argument("weights", type=Path, help="folder of runs, or a model")
    parser.add_argument("--num-prompts", type=int, default=50)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=3.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = exported_weights(asked.weights, ["base"])["base"].load()
    assert model.samples is not None, (
        "a network of this project's trainer says what it was trained on"
    )
    model.net.float()
    pipeline = LaViePipeline.from_model(model, scheduler="ddim")
    pipeline.set_progress_bar_config(disable=True)
    clips = clips_of(asked.corpus, model.samples)
    captions = sorted({clip.caption for clip in clips})
    prompts = captions[:: max(1, len(captions) // asked.num_prompts)][: asked.num_prompts]
    found = []
    print("  own other margin motion ceiling  prompt")
    videos = samples(pipeline, prompts, model.samples, asked.steps, asked.guidance)
    for prompt, video_TCHW in zip(prompts, videos, strict=True):
        one = compared(pipeline, prompt, video_TCHW, clips)
        found.append(one)
        numbers = (one.own_db, one.other_db, one.own_db - one.other_db, one.motion, one.ceiling_db)
        print("{:5.1f} {:5.1f} {:6.1f} {:6.2f} {:7.1f}  {}".format(*numbers, prompt), flush=True)
    right = sum(one.own_db > one.other_db for one in found)
    margin = sum(one.own_db - one.other_db for one in found) / len(found)
    own = sum(one.own_db for one in found) / len(found)
    moves = sorted(one.motion for one in found)[len(found) // 2]
    print(
        f"{right} of {len(found)} nearest to their own clip; own {own:.1f} dB, margin {margin:.1f} dB in the "
        f"mean; motion {moves:.2f} times the film's (median)"
    )


if __name__ == "__main__":
    main()
