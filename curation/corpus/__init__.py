"""The corpus on disk: columns, parts, layers, and the files that hold them.

This package is the contract between curation (writes) and training (reads). It imports pyarrow and the
standard library, nothing heavier, so that a reader of the corpus needs no part of the curation.

    schema    every column: name, type, unit, doc
    store     a folder or an object-store prefix: read, list, atomic put
    layout    where each file of a corpus lies
    ledger    which parts were committed, with which bytes; done, missing, damaged, again
    parts     one layer of one part as a table; layers side by side
    manifest  corpus.json and the manifest of exported shards
"""
