"""`lavie studio` as a user meets it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pipelines import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_page_is_served_until_it_is_interrupted(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra `studio` is not installed")
    command = [sys.executable, "-m", "pipelines", "studio", "--weights", "tiny", "--out"]
    with subprocess.Popen(
        [*command, str(tmp_path / "samples")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+/)", line)
        assert found is not None, line
        with urllib.request.urlopen(found[1], timeout=20) as answer:
            assert b"LaVie studio" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--port", "0"), "port must be 1 to 65535"),
        (("--weights", "tiny", "--stages", "base,upscale"), "stages must be of"),
        (("--weights", "tiny", "--stages", "interpolation"), "needs weights of the base stage"),
        (("--weights", "tiny", "--loras", "no-such-folder"), "no folder of LoRAs"),
        (("--weights", "no-such-folder"), "no-such-folder"),
        (("--weights", "tiny", "--height", "321"), "multiples of 8"),
    ],
    ids=["port", "stage", "base", "loras", "weights", "size"],
)
def test_what_cannot_be_served_is_said_before_anything_starts(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    message: str,
) -> None:
    out = tmp_path / "samples"
    assert cli.main(["studio", "--out", str(out), *flags]) == 2
    assert message in " ".join(capsys.readouterr().err.replace("|", " ").split())
    assert not out.exists()
