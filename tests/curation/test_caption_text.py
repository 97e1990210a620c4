"""Words, language and repetition of captions."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from curation.caption_text import CaptionText, CaptionTextConfig, repetition, words
from curation.station import check_output


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("A dog runs on the beach.", 6),
        ("two  words", 2),
        ("", 0),
        ("... - !", 0),
        ("don't look-back", 2),
        ("a - b", 2),
        ("4 x 100 m", 4),
        ("\u72d7\u5728\u8dd1", 3),  # three Chinese characters
        ("\u72d7 and cat", 3),
        ("\ud55c\uad6d\uc5b4 \ubb38\uc7a5", 2),  # Korean is written with spaces
        ("caf\u00e9 \u00fcber na\u00efve", 3),
    ],
)
def test_words_are_counted(text, number):
    assert len(words(text)) == number


def test_repetition_is_the_share_of_pairs_seen_before():
    assert repetition("a b c d") == 0.0
    assert repetition("a b a b a b") == pytest.approx(1 - 2 / 5)
    assert repetition("the dog the dog") == pytest.approx(1 - 2 / 3)
    assert repetition("word") == 0.0
    assert repetition("") == 0.0


def measured(*captions: str | None, **settings) -> list[dict]:
    station = CaptionText(CaptionTextConfig(**settings))
    station.setup()
    clips = pa.table(
        {
            "clip_id": pa.array([f"clip-{i}" for i in range(len(captions))], pa.string()),
            "caption": pa.array(captions, pa.string()),
        }
    )
    added = station(clips)
    check_output(station, clips, added)
    assert added.equals(station(clips))
    return added.to_pylist()


def test_languages_are_told_apart():
    rows = measured(
        "A young woman walks her dog along the beach at sunset.",
        "Eine junge Frau geht bei Sonnenuntergang mit ihrem Hund am Strand spazieren.",
        "Une jeune femme se prom\u00e8ne avec son chien sur la plage au coucher du soleil.",
        "\u4e00\u4e2a\u5e74\u8f7b\u7684\u5973\u4eba\u5728\u6d77\u6ee9\u4e0a\u904d\u72d7",
        "A young woman walks\nher dog",
    )
    assert [row["caption_language"] for row in rows] == ["en", "de", "fr", "zh", "en"]
    assert all(0.5 < row["caption_language_score"] <= 1.0 for row in rows)


def test_no_caption_has_no_words_and_no_language_and_one_without_letters_no_language():
    rows = measured(None, "1234 !", "")
    assert [row["caption_words"] for row in rows] == [0, 1, 0]
    assert [row["caption_language"] for row in rows] == [None] * 3
    assert [row["caption_language_score"] for row in rows] == [None] * 3
    assert [row["caption_repetition"] for row in rows] == [None, 0.0, 0.0]


def test_only_the_beginning_of_a_long_text_tells_the_language():
    german = "Eine junge Frau geht mit ihrem Hund am Strand spazieren. "
    (row,) = measured(
        german + "An English sentence that goes on. " * 50, max_language_characters=55
    )
    assert row["caption_language"] == "de"


def test_no_captions_at_all_give_an_empty_layer():
    assert measured() == []


def test_the_language_model_needs_no_network():
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise RuntimeError('the network was used')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from curation.caption_text import CaptionText\n"
        "station = CaptionText(); station.setup()\n"
        "print(station.language('The quick brown fox jumps over the lazy dog')[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "en"


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match="max_language_characters"):
        CaptionTextConfig(max_language_characters=0)
