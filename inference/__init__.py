"""Weights and a prompt -> video: the cascade's three stages as diffusers pipelines.

::

    settings              what is asked for, told without torch
    schedulers            samplers, built from what the weights were trained for
    pipeline              what the pipelines share; arguments, frames and library lie under it
    text_to_video interpolation super_resolution        one pipeline a stage
    tiles long_video feature_reuse      what bounds memory, lifts the length, saves calls
    lora personalised     subjects and styles learned on images
    weights memory cascade              where weights come from, what is in memory, the whole way
    video_file            mp4, gif, frames; with what made them
    tiny                  untrained networks, to try the machinery
    evaluate              how good the videos are

Of training it sees `training.models` alone.
"""
