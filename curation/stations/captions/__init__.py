"""Station `captions`: the sentence that a clip is trained with.

Engines are asked in turn until one has a sentence; which one it was stands beside it. `timed` takes
what a person wrote for stretches of films, `given` the text that came with the source. `tags` strings
what a classifier saw into a sentence: a stop-gap for machines without a captioning model, and labelled
as such. `transformers`, `endpoint` and `vllm` show keyframes to a vision-language model
(`curation.stations.caption_models`); one of them may come last.

    config      settings, and what of them determines the captions
    rows        one row of the layer: from given text, from tags, from a model's answer
    timed       captions for stretches of films
    station     the station
    cost        what a run took, for its last lines
"""

from curation.stations.caption_models.answer import cleaned
from curation.stations.captions.cost import cost_line
from curation.stations.captions.rows import Caption, given_caption, model_caption, tags_caption
from curation.stations.captions.settings import CaptionsConfig, CaptionWeights
from curation.stations.captions.station import Captions

__all__ = [
    "Caption",
    "CaptionWeights",
    "Captions",
    "CaptionsConfig",
    "cleaned",
    "cost_line",
    "given_caption",
    "model_caption",
    "tags_caption",
]
