"""How good sampled videos are: FVD, KVD and CLIPSIM, with every choice of the protocol on record.

    videos.py      which frames of a file are looked at, and how they are cropped and resized
    extractor.py   the network whose features are compared: given by the user, pinned by sha256
    statistics.py  mean and covariance of features, streaming and mergeable, float64
    distances.py   Frechet distance, kernel distance, bootstrap confidence
    clipsim.py     how well frames fit their caption
    protocols.py   the choices as dataclasses; those of the paper as presets
    result.py      running a protocol, and the JSON that says how a number came about
    vbench.py      files under the names that VBench looks for

A score depends on such choices as much as on the model: two FVDs can be compared only where their
result files agree in all but the videos.
"""
