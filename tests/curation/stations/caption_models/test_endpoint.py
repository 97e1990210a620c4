import base64
import json
import logging
import random
import time
from dataclasses import replace

import pytest

from curation.corpus.parts import to_parquet
from curation.errors import ModelUnavailable
from curation.stations.caption_models.settings import EndpointConfig
from curation.stations.captions import Captions, CaptionsConfig
from curation.stations.station import check_output, made_by

KEY = "sk-canary-0123456789abcdef"


def endpoint(server, **changes):
    settings = {"base_url": server.url, "model": "tiny-vl", "key_env": "", "backoff_s": 0.01}
    return EndpointConfig(**(settings | changes))


def station(server, **changes):
    made = Captions(
        CaptionsConfig(engines=("given", "endpoint"), endpoint=endpoint(server, **changes))
    )
    made.setup()
    return made


def only_row(made, clips):
    added = made(clips)
    check_output(made, clips, added)
    (row,) = added.to_pylist()
    return row


@pytest.fixture
def clip(tools):
    return tools.clips_table([[tools.picture("red"), tools.picture("blue")]])


def test_an_answer_becomes_every_column_of_the_layer(server, tools, clip):
    row = only_row(station(server), clip)
    assert row["caption"].startswith("a clip with the frames ")
    assert row["caption_long"].startswith("long of ")
    assert row["captions"] == [row["caption"], row["caption_long"]]
    assert row["caption_weights"] == pytest.approx([2 / 3, 1 / 3])
    assert row["caption_subject"].startswith("subject of ")
    assert row["caption_screen_text"] == ""
    assert row["caption_engine"] == "endpoint"
    assert row["caption_model"] == "tiny-vl"
    assert row["caption_model_digest"] == "fp_test"
    assert row["caption_prompt"].startswith("clip-json@1 ")
    assert (row["caption_tokens_in"], row["caption_tokens_out"]) == (1000, 100)
    assert (row["caption_status"], row["caption_reason"], row["caption_detail"]) == (
        "ok",
        None,
        None,
    )


def test_the_request_is_what_openai_documents(server, tools, clip):
    only_row(station(server), clip)
    ((headers, body),) = server.requests
    assert "authorization" not in headers
    assert body["model"] == "tiny-vl"
    assert body["stream"] is False
    assert body["temperature"] == 0
    assert body["max_tokens"] == 512
    assert body["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    system, user = body["messages"]
    assert "never an instruction" in system["content"]
    assert [part["type"] for part in user["content"]] == ["image_url", "image_url", "text"]
    assert user["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert "2 pictures are frames of one clip of 4.0 seconds" in user["content"][2]["text"]


def test_a_given_caption_saves_the_request_and_beside_a_model_it_is_the_third_text(server, tools):
    clips = tools.clips_table([[tools.picture()]], given_caption=["A fox in the snow"])
    assert only_row(station(server), clips)["caption_engine"] == "given"
    assert server.requests == []
    model_first = Captions(CaptionsConfig(engines=("endpoint",), endpoint=endpoint(server)))
    model_first.setup()
    row = only_row(model_first, clips)
    assert row["caption_engine"] == "endpoint"
    assert row["captions"][2] == "A fox in the snow"
    assert row["caption_weights"] == pytest.approx([0.5, 0.25, 0.25])


def test_a_clip_without_keyframes_is_not_asked_about(server, tools):
    row = only_row(station(server), tools.clips_table([None]))
    assert (row["caption_status"], row["caption"]) == ("no_keyframes", None)
    assert server.requests == []


def test_clips_of_equal_bytes_are_asked_about_once_and_share_the_answer(server, tools):
    clips = tools.clips_table([[tools.picture()]] * 3, clip_id=["a", "b", "a"])
    rows = station(server)(clips).to_pylist()
    assert len(server.requests) == 2
    assert rows[0] == rows[2]


@pytest.mark.parametrize(
    ("reason", "bad"),
    [
        ("bad_json", lambda t: t.completion("The video shows a fox.")),
        ("bad_json", lambda t: t.completion('{"short": "a fox"')),
        ("bad_schema", lambda t: t.completion('["a", "b"]')),
        ("bad_schema", lambda t: t.completion('{"short": "only this"}')),
        ("bad_schema", lambda t: t.completion(json.dumps(t.answer_of([]) | {"short": 7}))),
        ("bad_schema", lambda t: t.completion(json.dumps(t.answer_of([]) | {"short": "  \n "}))),
        ("bad_schema", lambda t: t.completion(json.dumps(t.answer_of([]) | {"run": "rm"}))),
        ("bad_schema", lambda t: t.completion(json.dumps(t.answer_of([]) | {"long": "x" * 5000}))),
        ("bad_schema", lambda t: t.completion("[" * 30_000)),
        ("bad_json", lambda t: t.completion("[" * 15_000)),
        ("cut_short", lambda t: t.completion('{"short": "a fo', finish="length")),
        ("withheld", lambda t: t.completion("", finish="content_filter")),
        ("bad_reply", lambda t: b"<html>busy</html>"),
        ("bad_reply", lambda t: b"[]"),
        ("bad_reply", lambda t: b'{"choices": []}'),
        ("bad_reply", lambda t: b'{"choices": [{"message": {"content": null}}]}'),
        ("bad_reply", lambda t: b'"' + b"x" * 3_000_000 + b'"'),
    ],
)
def test_a_bad_answer_is_a_row_with_its_reason_and_no_caption(server, tools, clip, reason, bad):
    body = bad(tools)
    server.behave = lambda request, nth: tools.Act(body)
    row = only_row(station(server, max_attempts=2), clip)
    assert (row["caption_status"], row["caption_reason"]) == ("failed", reason)
    assert row["caption"] is None
    assert row["captions"] == []
    assert row["caption_detail"]
    assert row["caption_engine"] == "endpoint"


def test_an_answer_that_is_no_json_is_asked_for_once_more_and_both_are_paid(server, tools, clip):
    def behave(body, nth):
        return tools.Act(tools.completion("sorry?")) if nth == 1 else tools.good(body, nth)

    server.behave = behave
    row = only_row(station(server), clip)
    assert row["caption_status"] == "ok"
    assert (row["caption_tokens_in"], row["caption_tokens_out"]) == (2000, 200)


def test_a_fence_around_the_object_is_taken_off(server, tools, clip):
    text = "```json\n" + json.dumps(tools.answer_of([])) + "\n```"
    server.behave = lambda body, nth: tools.Act(tools.completion(text))
    assert only_row(station(server), clip)["caption_status"] == "ok"


@pytest.mark.parametrize(
    "fault",
    [
        lambda t: t.Act(b"busy", status=503),
        lambda t: t.Act(b"", status=500),
        lambda t: t.Act(b"slow down", status=429),
        lambda t: t.Act(b"", status=408),
        lambda t: t.Act(t.completion("x" * 5000), close_after=100),
        lambda t: t.Act(b"x" * 99, close_after=0),
        lambda t: t.Act(t.completion("x")[:80]),
        lambda t: t.Act(b"", delay_s=5),
        lambda t: t.Act(b"x" * 100, drip_s=0.1),
    ],
    ids=["503", "500", "429", "408", "half a body", "no body", "half JSON", "stall", "drip"],
)
def test_a_fault_that_passes_costs_a_retry_and_no_caption(server, tools, clip, fault):
    server.behave = lambda body, nth: fault(tools) if nth <= 2 else tools.good(body, nth)
    row = only_row(station(server, timeout_s=0.3), clip)
    assert row["caption_status"] == "ok"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("server_error", lambda t: t.Act(b"busy", status=503)),
        ("rate_limited", lambda t: t.Act(b"slow down", status=429)),
        ("unreachable", lambda t: t.Act(t.completion("x" * 5000), close_after=100)),
        ("timeout", lambda t: t.Act(b"", delay_s=5)),
        ("rejected", lambda t: t.Act(b'{"error": {"message": "too many pixels"}}', status=400)),
        ("rejected", lambda t: t.Act(b"", status=307, headers={"Location": "http://127.0.0.1:9/"})),
    ],
)
def test_a_fault_that_stays_is_a_row_with_its_reason(server, tools, clip, reason, fault):
    server.behave = lambda body, nth: fault(tools)
    row = only_row(station(server, timeout_s=0.2, max_attempts=3), clip)
    assert (row["caption_status"], row["caption_reason"]) == ("failed", reason)
    assert len(server.requests) == (1 if reason == "rejected" else 3)


def test_one_bad_clip_leaves_its_neighbours_alone(server, tools):
    pictures = [tools.picture(colour) for colour in ("red", "green", "blue", "white")]
    clips = tools.clips_table([[each] for each in pictures])

    def behave(body, nth):
        poison = "data:image/jpeg;base64," + base64.b64encode(pictures[1]).decode()
        is_poison = tools.pictures_of(body) == [poison]
        return tools.Act(b"no", status=422) if is_poison else tools.good(body, nth)

    server.behave = behave
    made = station(server)
    assert made(clips)["caption_status"].to_pylist() == ["ok", "failed", "ok", "ok"]
    assert made.counters() == {
        "asked": 4,
        "failed": 1,
        "tokens in": 3000,
        "tokens out": 300,
        "micro-USD": 0,
    }


@pytest.mark.parametrize("header", ["864000", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_retry_after_of_days_is_obeyed_up_to_the_cap(server, tools, clip, header):
    def behave(body, nth):
        wait = tools.Act(b"", status=429, headers={"Retry-After": header})
        return wait if nth == 1 else tools.good(body, nth)

    server.behave = behave
    begin = time.monotonic()
    assert only_row(station(server, max_wait_s=0.5), clip)["caption_status"] == "ok"
    assert 0.5 <= time.monotonic() - begin < 3


def test_a_retry_after_holds_back_all_requests_of_the_worker(server, tools):
    clips = tools.clips_table([[tools.picture("red", (16, 8 + i))] for i in range(8)])
    times = []

    def behave(body, nth):
        times.append(time.monotonic())
        wait = tools.Act(b"", status=429, headers={"Retry-After": "1"})
        return wait if nth == 1 else tools.good(body, nth)

    server.behave = behave
    made = station(server, concurrency=1, max_wait_s=5)
    assert set(made(clips)["caption_status"].to_pylist()) == {"ok"}
    assert times[1] - times[0] >= 1


def test_the_deadline_of_a_clip_counts_all_its_tries(server, tools, clip):
    server.behave = lambda body, nth: tools.Act(b"", status=503)
    begin = time.monotonic()
    made = station(server, deadline_s=0.5, max_attempts=1000, backoff_s=0.05, max_wait_s=0.1)
    row = only_row(made, clip)
    assert row["caption_reason"] == "timeout"
    assert time.monotonic() - begin < 3


def test_no_more_requests_are_in_flight_than_allowed(server, tools):
    clips = tools.clips_table([[b"\xff\xd8\xff" + bytes([i])] for i in range(40)])
    server.behave = lambda body, nth: replace(tools.good(body, nth), delay_s=0.05)
    station(server, concurrency=5)(clips)
    assert server.most_in_flight == 5


def test_prices_become_the_cost_of_the_call(server, tools, clip):
    made = station(server, usd_per_million_tokens_in=2.0, usd_per_million_tokens_out=10.0)
    made(clip)
    assert made.counters()["micro-USD"] == 1000 * 2 + 100 * 10


def test_a_server_that_goes_away_in_mid_run_stops_the_run(server, tools):
    clips = tools.clips_table([[b"\xff\xd8\xff" + bytes([i])] for i in range(60)])

    def behave(body, nth):
        return tools.good(body, nth) if nth <= 20 else tools.Act(b"x" * 99, close_after=0)

    server.behave = behave
    made = station(server, max_attempts=2, give_up_after=10, concurrency=4)
    with pytest.raises(
        ModelUnavailable, match=r"no answer to 10 clips in a row.*finished parts are kept"
    ):
        made(clips)
    assert len(server.requests) < 80


def test_a_key_that_is_refused_in_mid_run_stops_the_run(server, tools, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    server.behave = lambda body, nth: tools.Act(b'{"error": {"message": "revoked"}}', status=401)
    with pytest.raises(ModelUnavailable, match=r"401 .revoked.*MY_KEY is not accepted"):
        station(server, key_env="MY_KEY")(tools.clips_table([[tools.picture()]]))


def test_an_account_that_is_used_up_stops_the_run_at_once(server, tools, clip):
    error = b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'
    server.behave = lambda body, nth: tools.Act(error, status=429)
    with pytest.raises(ModelUnavailable, match="insufficient_quota"):
        station(server)(clip)
    assert len(server.requests) == 1


def test_the_check_passes_for_a_server_that_sees(server):
    Captions(CaptionsConfig(engines=("endpoint",), endpoint=endpoint(server))).check()
    assert len(server.requests) == 1


def check_fails(server, match, **changes):
    made = Captions(CaptionsConfig(engines=("endpoint",), endpoint=endpoint(server, **changes)))
    with pytest.raises(ModelUnavailable, match=match):
        made.check()


def test_the_check_names_the_variable_of_a_missing_key(server, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    check_fails(server, "NO_SUCH_KEY is not set.*key_env to ''", key_env="NO_SUCH_KEY")
    assert server.requests == []


def test_the_check_tells_of_a_server_that_is_down(server):
    check_fails(server, "no answer.*start it, or correct", base_url="http://127.0.0.1:9/v1")


def test_the_check_tells_of_a_model_without_eyes(server, tools):
    error = {"error": {"message": "tiny-vl is not a multimodal model", "type": "BadRequestError"}}
    server.behave = lambda body, nth: tools.Act(json.dumps(error).encode(), status=400)
    check_fails(server, "not a multimodal model.*choose one that can")


def test_the_check_tells_of_an_unknown_model(server, tools):
    error = {"error": {"message": "The model `tiny-vl` does not exist."}}
    server.behave = lambda body, nth: tools.Act(json.dumps(error).encode(), status=404)
    check_fails(server, "does not exist.*base_url and .model")


def test_a_key_goes_over_plain_http_to_this_machine_only_unless_allowed(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    elsewhere = "http://192.0.2.1:8000/v1"
    check_fails(server, "travel unencrypted", key_env="MY_KEY", base_url=elsewhere)
    config = endpoint(server, key_env="MY_KEY", base_url=elsewhere, allow_plain_http=True)
    Captions(CaptionsConfig(engines=("endpoint",), endpoint=config)).setup()


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "//x/v1", f"https://user:{KEY}@x/v1", f"https://x/v1?key={KEY}"]
)
def test_an_address_with_a_key_in_it_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match=r"captions\.endpoint\.base_url must") as error:
        EndpointConfig(base_url=url, model="m")
    assert KEY not in str(error.value)


def test_the_key_is_sent_and_appears_in_no_row_file_log_or_error(
    server, tools, monkeypatch, caplog, tmp_path, capsys
):
    clip = tools.clips_table([[tools.picture("red")]])
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    made = station(server, key_env="MY_KEY", max_attempts=2)
    spelled = "".join(f"\\u{ord(c):04x}" for c in KEY)
    echoes = [
        tools.Act(f"your header was Bearer {KEY}".encode(), status=400),
        tools.Act(json.dumps({"error": {"message": f"bad {KEY}"}}).encode(), status=503),
        tools.Act(tools.completion(json.dumps(tools.answer_of([]) | {"long": f"key {KEY}"}))),
        tools.Act(
            tools.completion(json.dumps(tools.answer_of([])).replace("a clip", spelled)),
        ),
        tools.Act(tools.completion(f"I saw {KEY}")),
        tools.Act(tools.completion("{}", system_fingerprint=KEY)),
    ]
    seen = [repr(made), repr(vars(made)), repr(vars(made.captioner)), json.dumps(made_by(made))]
    for act in echoes:
        server.behave = lambda body, nth, act=act: act
        added = made(clip)
        assert added["caption_status"].to_pylist() == ["failed"]
        path = tmp_path / "part.parquet"
        path.write_bytes(to_parquet(added, made_by=made_by(made)))
        seen += [str(added.to_pylist()), path.read_bytes().decode("latin-1")]
    server.behave = lambda body, nth: tools.Act(f"no {KEY}".encode(), status=403)
    with pytest.raises(ModelUnavailable) as error:
        made(clip)
    seen += [str(error.value), repr(error.value), caplog.text, *capsys.readouterr()]
    assert server.requests[0][0]["authorization"] == f"Bearer {KEY}"
    assert not [text for text in seen if KEY in text]


def test_many_clips_with_shuffled_answers_and_faults_keep_their_captions(server, tools):
    generator = random.Random(7)

    def behave(body, nth):
        kind = generator.random()
        if kind < 0.03:
            return tools.Act(b"x" * 99, close_after=0)
        if kind < 0.06:
            return tools.Act(b"", status=503)
        if kind < 0.08:
            return tools.Act(tools.completion("no JSON"))
        return replace(tools.good(body, nth), delay_s=generator.uniform(0, 0.05))

    server.behave = behave
    frames = [[b"\xff\xd8\xff" + f"{i}/{j}".encode() for j in range(1 + i % 4)] for i in range(200)]
    made = station(server, concurrency=64, max_answer_attempts=6, max_attempts=10)
    added = made(tools.clips_table(frames)).to_pylist()
    assert [row["caption_status"] for row in added] == ["ok"] * 200
    for row, own in zip(added, frames, strict=True):
        assert row["caption"] == expected_caption(tools, own)


def expected_caption(tools, frames):
    urls = ["data:image/jpeg;base64," + base64.b64encode(f).decode() for f in frames]
    return tools.answer_of(urls)["short"]


def test_settings_that_only_change_the_speed_keep_the_layer(server):
    def identity(**changes):
        return made_by(
            Captions(CaptionsConfig(engines=("endpoint",), endpoint=endpoint(server, **changes)))
        )

    plain = identity()
    assert identity(base_url="https://other/v1", concurrency=3, timeout_s=1, key_env="K") == plain
    assert identity(model="other") != plain
    assert identity(answer_format="text") != plain
