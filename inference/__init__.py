"""Weights and a prompt -> video: the cascade's three stages as diffusers pipelines.

    schedulers                              samplers, built from what the weights were trained for
    pipeline text_to_video interpolation super_resolution     one pipeline a stage; library, arguments
                                            and frames lie under them
    tiles long_video feature_reuse          what bounds memory, lifts the length, saves calls
    lora personalised                       subjects and styles learned on images
    weights memory cascade                  where weights come from, what is in memory, the whole way
    video_file                              mp4, gif, frames; with what made them
    tiny                                    untrained networks, to try the machinery
    evaluate                                how good the videos are
"""
