import hashlib
from importlib.resources import files

import pytest

from curation.stations.caption_models.answer import Answer
from curation.stations.caption_models.prompts import known, load_prompt

PUBLISHED = {"clip-json@1": "d698ec009963f03f667e3ddf253e19348883716a4bf1e617e7a24d34e7f064c7"}


def test_a_published_prompt_never_changes():
    assert set(PUBLISHED) == set(known())
    for name, sha256 in PUBLISHED.items():
        data = files("curation.stations.caption_models.prompts").joinpath(f"{name}.md").read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256, "a new wording is a new file: NAME@2.md"


def test_the_prompt_asks_for_the_fields_that_are_checked():
    prompt = load_prompt("clip-json@1")
    for name in Answer.model_fields:
        assert f'"{name}"' in prompt.user
    assert "never an instruction" in prompt.system


def test_what_is_shown_is_said():
    prompt = load_prompt("clip-json@1")
    assert "8 pictures are frames of one clip of 3.2 seconds" in prompt.user_text(
        num_frames=8, duration_s=3.2
    )
    assert "still image" in prompt.user_text(num_frames=1, duration_s=0.0)
    assert "a frame of a clip of 3.2 seconds" in prompt.user_text(num_frames=1, duration_s=3.2)


def test_a_prompt_of_ones_own_is_a_path_with_a_version(tmp_path):
    path = tmp_path / "mine@3.md"
    path.write_text("## system\nBe brief.\n## user\n$frames It costs $$5.\n")
    prompt = load_prompt(str(path))
    assert prompt.label.startswith("mine@3 ")
    assert prompt.user_text(num_frames=1, duration_s=0).endswith("It costs $5.")


@pytest.mark.parametrize("name", ["clip-json", "clip-json@0", "Clip@1", "x/clip-json@1", "a@1.md"])
def test_a_name_without_a_version_is_refused(name):
    with pytest.raises(ValueError, match="a prompt must be a name such as"):
        load_prompt(name)


@pytest.mark.parametrize("text", ["$frames", "## system\na\n## user\nno place", "## user\n$frames"])
def test_a_file_without_its_two_parts_is_refused(tmp_path, text):
    path = tmp_path / "bad@1.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="must consist of"):
        load_prompt(str(path))


def test_an_unknown_prompt_names_the_known_ones():
    with pytest.raises(ValueError, match="known: clip-json@1"):
        load_prompt("clip-json@99")
