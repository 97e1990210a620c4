"""Stations: each reads columns of clips, most of all their keyframes, and adds columns.

`station` says what a station is. In the order of the river::

    embeddings     what the keyframes look like, as vectors
    aesthetics     how pleasing they are (LAION heads over the vectors)
    overlay_text   how much of the picture is text
    safety         how likely explicit content is
    taxonomy       category and tags
    captions       a sentence for the clip; its models are in `caption_models`
    caption_text   is that sentence any good
    alignment      does it fit the picture

Stations never import each other; what two of them share lies in `clip_model` and `keyframe_images`.
"""
