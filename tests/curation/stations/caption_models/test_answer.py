import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.stations.caption_models.answer import (
    Answer,
    AnswerError,
    answer_schema,
    cleaned,
    parse_answer,
)

FULL = dict.fromkeys(Answer.model_fields, "words")


def test_white_space_control_and_direction_characters_are_taken_out():
    answer = parse_answer(json.dumps(FULL | {"short": " a\tfox\n\u202eruns\x07 \u2066by "}))
    assert answer.short == "a fox runs by"


def test_accents_are_composed():
    assert cleaned("cafe\u0301") == "caf\u00e9"


def test_fields_that_may_be_empty_may_be_and_the_captions_may_not():
    assert parse_answer(json.dumps(FULL | {"action": ""})).action == ""
    for name in ("short", "long"):
        with pytest.raises(AnswerError, match=name):
            parse_answer(json.dumps(FULL | {name: "\u202e \n"}))


def test_the_detail_of_a_bad_answer_does_not_repeat_it():
    with pytest.raises(AnswerError) as error:
        parse_answer(json.dumps(FULL | {"short": ["<script>evil</script>"]}))
    assert "evil" not in error.value.detail
    assert error.value.reason == "bad_schema"


def test_numbers_are_not_taken_for_words():
    with pytest.raises(AnswerError, match="camera"):
        parse_answer(json.dumps(FULL | {"camera": 3}))


def test_words_around_the_object_are_not_taken_off():
    for text in ("Sure! " + json.dumps(FULL), json.dumps(FULL) + " Hope this helps"):
        with pytest.raises(AnswerError) as error:
            parse_answer(text)
        assert error.value.reason == "bad_json"


def test_the_schema_that_servers_get_is_what_is_checked():
    schema = answer_schema()
    assert schema["required"] == list(FULL)
    assert schema["additionalProperties"] is False
    assert {kind["type"] for kind in schema["properties"].values()} == {"string"}


@given(st.text(max_size=300))
def test_any_text_that_is_no_such_object_is_a_named_failure(text):
    reason = None
    try:
        parse_answer(text)
    except AnswerError as error:
        reason = error.reason
    assert reason in ("bad_json", "bad_schema")


@given(st.dictionaries(st.sampled_from(list(FULL)), st.text(max_size=400)))
def test_a_kept_caption_is_one_line_without_control_characters(words):
    try:
        answer = parse_answer(json.dumps(FULL | words))
    except AnswerError:
        return
    for value in answer.model_dump().values():
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)
        assert value == value.strip()
