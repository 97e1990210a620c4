"""What a sample is asked with, and which earlier ones are found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipelines.studio.samples import Request, earlier_samples


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": " "}, "prompt must say what to show"),
        ({"prompt": "a", "seed": -1}, "seed must be 0 to"),
        ({"prompt": "a", "num_steps": 0}, "steps must be 1 to 1000, got 0"),
        ({"prompt": "a", "guidance_scale": float("nan")}, "guidance must be a number"),
    ],
    ids=["prompt", "seed", "steps", "guidance"],
)
def test_a_sample_that_cannot_be_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request(**settings)  # type: ignore[arg-type]


def test_another_setting_is_another_file_and_no_prompt_leads_out_of_the_folder() -> None:
    first = Request(prompt="../../etc/passwd: A Panda!", seed=3)
    assert first.file_name.startswith("etc-passwd-a-panda-3-")
    assert first.file_name == Request(prompt="../../etc/passwd: A Panda!", seed=3).file_name
    assert first.file_name != Request(prompt=first.prompt, seed=3, num_steps=51).file_name
    assert Request(prompt="\u718a").file_name.startswith("video-0-")


def test_earlier_samples_are_those_with_a_description_the_newest_first(tmp_path: Path) -> None:
    for age_s, name in ((30, "old"), (10, "new"), (20, "middle"), (5, "bare"), (1, "torn")):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(b"video")
        os.utime(path, (1_700_000_000 - age_s,) * 2)
        if name != "bare":
            text = json.dumps({"prompt": name, "seed": 1}) if name != "torn" else '{"prompt": '
            (tmp_path / f"{name}.mp4.json").write_text(text)
    found = earlier_samples(tmp_path)
    assert [sample.caption for sample in found] == ["new (1)", "middle (1)", "old (1)"]
