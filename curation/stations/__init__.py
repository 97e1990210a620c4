"""Stations: each reads columns of clips, most of all their keyframes, and adds columns.

`station` says what a station is; every other file or folder is one, but for what they share:
`keyframe_images`, `clip_model` and `caption_models`. Stations never import each other.
`curation.corpus.schema.LAYERS` lists them in the order of the river, with what each adds.
"""
