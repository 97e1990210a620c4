from collections import Counter

import torch

from training.data.samples import Medium, SampleMaker, captions_of


def test_captions_are_those_of_the_list_with_their_weights():
    facts = {"captions": ["short", "a long one", ""], "caption_weights": [0.75, 0.25, 0.0]}
    assert captions_of(facts, "short") == (("short", "a long one"), (0.75, 0.25))


def test_without_a_list_the_text_of_the_sample_is_its_caption():
    assert captions_of({}, "short") == (("short",), (1.0,))
    assert captions_of({"captions": [""], "caption_weights": [0.0]}, "x") == (("x",), (1.0,))


def test_captions_are_drawn_by_their_weights(run_of, small_corpus):
    class Reader:
        def clip(self, row, kind, size_px, at):
            return Medium(
                clip_id="a",
                captions=("short", "long", "given"),
                caption_weights=(0.5, 0.3, 0.2),
                frames_FCHW=torch.zeros(8, 3, 2, 2, dtype=torch.uint8),
            )

        def dropped_text(self):
            return None

    class Pool:
        source, kind, size_px = 0, "video", (2, 2)

        def row(self, number):
            return {"clip_id": "a"}

    maker, pool = SampleMaker(run_of(small_corpus), [Reader()]), Pool()
    drawn = Counter(
        maker.sample(step, 0, [[(pool, 0)]], [], pool=pool, dropout=0.0).captions[0]
        for step in range(1000)
    )
    for caption, expected in {"short": 500, "long": 300, "given": 200}.items():
        assert abs(drawn[caption] - expected) < 60
