"""The networks of the cascade and their companions; the one part of training that inference sees.

Order of the files, lowest first: config, layout, rotary, embedding, attention, residual, temporal,
transformer, blocks, unet; schedule; then what surrounds the networks.
"""
