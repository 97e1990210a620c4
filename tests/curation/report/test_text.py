"""Secrets and control characters stay out of what is shown."""

from __future__ import annotations

import pytest

from curation.report.text import cut_text, safe_command, safe_settings, safe_uri


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://key:secret@bucket/a/b.mp4", "s3://bucket/a/b.mp4"),
        ("https://host/a.mp4?X-Amz-Signature=abc&x=1#t=1", "https://host/a.mp4"),
        ("https://user:p@ss@host/a@b.mp4", "https://host/a@b.mp4"),
        ("https://host?token=abc", "https://host"),
        ("/films/what?.mp4", "/films/what?.mp4"),
        ("films/a.mp4", "films/a.mp4"),
    ],
)
def test_addresses_lose_user_password_and_query(uri, shown):
    assert safe_uri(uri) == shown


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("lavie curate 's3://k:s@b/x?sig=1' --out o", "lavie curate 's3://b/x' --out o"),
        ("lavie curate x --hub-token abc --out o", "lavie curate x --hub-token *** --out o"),
        ("lavie curate x --api-key='a b' --out o", "lavie curate x --api-key=*** --out o"),
        ("AWS_SECRET_ACCESS_KEY=abc lavie curate x", "AWS_SECRET_ACCESS_KEY=*** lavie curate x"),
        ("lavie curate secret movie.mp4", "lavie curate secret movie.mp4"),
    ],
)
def test_commands_lose_what_looks_like_a_secret(command, shown):
    assert safe_command(command) == shown


def test_settings_are_cleaned_at_every_depth():
    settings = {"a": [{"uri": "s3://k:s@b/x"}], "hub_token": "abc", "count": 3, "none": None}
    cleaned = {"a": [{"uri": "s3://b/x"}], "hub_token": "***", "count": 3, "none": None}
    assert safe_settings(settings) == cleaned


def test_texts_are_cut_and_lose_control_and_direction_characters():
    assert cut_text("a\u202eb\u2066c\x00\x1bd\n  e", 80) == "abcd e"
    assert cut_text("x" * 100_000, 20) == "x" * 17 + "..."
    assert cut_text("x" * 20, 20) == "x" * 20


def test_texts_keep_the_joiners_that_scripts_and_emoji_need():
    persian = "\u0645\u06cc\u200c\u0631\u0648\u0645"
    assert cut_text(persian, 80) == persian
