"""The one decoding pass: a source is read once, and all that needs its frames is done on the way.

::

    decoding_pass   sources of a part -> their rows in the layers probe, scenes and keyframes
    film            frames of a source in order, and what is wrong with them
    timeline        when they are shown, and how fast they follow each other
    measuring       what is measured on the frames of one video while they stream by
    cuts            where one shot ends and the next begins, by PySceneDetect's scores and our rules
    transnet        the same by TransNetV2
    scenes          transitions -> spans that are clips
    motion          optical flow
    picture         brightness, contrast, saturation, sharpness, black rims
    keyframes       the pictures that stand for a scene, and their hashes
"""
