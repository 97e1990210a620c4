"""What a job of a cluster is made of, and what is refused before it is sent."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from curation.errors import UsageError
from pipelines import submit
from pipelines.cli import main, parse

WORDS = ["curate", "s3://raw/a b's", "--out", "s3://lavie/corpus", "--rule", "width>=512"]


def test_a_job_is_the_command_that_was_typed_on_the_cluster_that_it_runs_on() -> None:
    words = shlex.split(submit.entrypoint(WORDS))
    assert words == ["python", "-m", "pipelines", *WORDS, "--ray-address", "auto"]
    other = [*WORDS, "--ray-address=10.0.0.1:6379"]
    assert shlex.split(submit.entrypoint(other))[3:] == other


def test_the_code_goes_along_and_nothing_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    env = submit.runtime_env()
    assert all((Path(module) / "__init__.py").exists() for module in env["py_modules"])
    assert "canary" not in str(env)


def test_flags_behind_the_dashes_are_the_job_s(capsys: pytest.CaptureFixture[str]) -> None:
    twice = [*WORDS, "--rule", "height>=512"]
    command = parse(["submit", "--follow", "--", *twice])
    assert command.follow
    assert list(command.command) == twice
    assert main(["submit", "--", *WORDS, "--no-such-flag"]) == 2
    assert "no-such-flag" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["train", "base"],
        ["curate", "s3://key:secret@bucket/films", "--out", "c"],
        ["curate", "films", "--out=s3://key:secret@bucket/corpus"],
    ],
    ids=["nothing", "another command", "a secret", "a secret in a flag"],
)
def test_what_cannot_be_a_job_is_refused_without_being_repeated(words: list[str]) -> None:
    with pytest.raises(UsageError, match="lavie submit") as refused:
        submit.check_words(words)
    assert "secret" not in str(refused.value)


def test_a_job_server_that_is_not_there_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--address", "http://127.0.0.1:9", "--", *WORDS]) == 1
    assert "Ray's job API is not installed" in (said := capsys.readouterr().err) or (
        "no job server of Ray answers" in said
    )


class Jobs:
    """A job that writes something each time it is looked at."""

    def __init__(self, code: int | None) -> None:
        self.looks, self.code = 0, code

    def get_job_info(self, job: str) -> Any:
        self.looks += 1
        ended = JobStatus.SUCCEEDED if self.code == 0 else JobStatus.FAILED
        status = ended if self.looks == 3 else JobStatus.RUNNING
        return SimpleNamespace(status=status, driver_exit_code=self.code, message="it was stopped")

    def get_job_logs(self, job: str) -> str:
        return "".join(f"line {number}\n" for number in range(self.looks))


def test_a_followed_job_is_shown_once_and_ends_with_its_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submit, "LOOK_S", 0)
    for code in (0, 3):
        said: list[str] = []
        assert submit.follow(Jobs(code), "job", said.append) == code  # type: ignore[arg-type]
        assert "".join(said) == "line 0\nline 1\nline 2\n"
    with pytest.raises(submit.JobFailed, match="it was stopped"):
        submit.follow(Jobs(None), "job", print)  # type: ignore[arg-type]
