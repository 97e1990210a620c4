import pytest

from curation.stations.caption_models.captioner import Reply, data_url, in_order, seed_of, spread


def reply(clip_id):
    return Reply(clip_id=clip_id, text=clip_id.upper())


def test_replies_are_put_back_by_id():
    found = in_order(["a", "b", "c"], [reply("c"), reply("a"), reply("b")])
    assert [each.text for each in found] == ["A", "B", "C"]


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "b"], ["a", "x"], ["a", "b", "x"]])
def test_replies_that_do_not_match_the_questions_are_refused(ids):
    with pytest.raises(AssertionError):
        in_order(["a", "b"], map(reply, ids))


def test_frames_are_spread_evenly_from_the_middles_of_equal_pieces():
    frames = [bytes([i]) for i in range(8)]
    assert spread(frames, 8) == tuple(frames)
    assert spread(frames, 20) == tuple(frames)
    assert spread(frames, 1) == (frames[4],)
    assert spread(frames, 4) == (frames[1], frames[3], frames[5], frames[7])
    assert spread(frames, 3) == (frames[1], frames[4], frames[6])


def test_pictures_are_named_by_their_first_bytes():
    assert data_url(b"\xff\xd8\xff\xe0").startswith("data:image/jpeg;base64,/9j/")
    assert data_url(b"RIFF\x00\x00\x00\x00WEBPVP8 ").startswith("data:image/webp;base64,")
    with pytest.raises(ValueError, match="JPEG or WebP"):
        data_url(b"GIF89a")


def test_the_seed_of_a_clip_is_a_31_bit_number_and_its_own():
    seeds = {seed_of(f"clip-{i}") for i in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)
