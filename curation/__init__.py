"""Raw videos and images -> a text-video corpus.

The river, in the order in which a clip goes down it::

    sources        which files there are, dealt into parts                      (one row a source)
    decode         one pass over each source: probe, scenes, motion, picture, keyframes
    embeddings     what the keyframes look like, as vectors                     (from here: one row a clip)
    aesthetics     how pleasing they are (LAION heads over the embeddings)
    overlay_text   how much of the picture is text, and how much of it was laid over
    logos          what stays over the picture while it changes
    safety         how likely explicit content is
    taxonomy       category and tags
    captions       a sentence for the clip
    caption_text   is that sentence any good
    alignment      does it fit the picture
    select         rules, duplicates, balance: which clips are kept, and why not
    export         the kept clips are cut and packed into shards
    report         what happened, for a reader

Every station reads columns and adds columns (`curation.stations.station`); the columns are listed in
`curation.corpus.schema`. Nothing here knows of Ray: `pipelines` runs the stations.
"""
