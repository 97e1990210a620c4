"""Curated shards -> batches, in an order that is a function of seed, step and position.

::

    random_numbers   keyed by what they are for; nothing is remembered
    order     permutations computed place by place; which pool at which step
    filtering which clips of an index can be trained on, at which size, and which are held out
    catalog   the rows of an index in pools, as memory-mapped files
    sources   the sources of a run, checked before the first step
    curriculum   which clips stand in which step
    picture   reading   from the bytes of a clip to the pixels of a sample
    samples   one sample: read, captioned, unreadable clips replaced
    held_out  samples that are never trained on, always the same
    batch     what a stage gets
    loader    `TrainingData`
    encode_config   encoding   latents   `lavie encode`: written here, read here

Imports nothing itself: `encode_config` is read by the command line, which does not wait for torch.
"""
