"""The only folder that knows Ray, and the top of the house: commands, presets, and the order of the river.

config    what a curation run is made of: one frozen dataclass over the stations' own
presets   named runs: embedded, vimeo25m, tiny
river     the stations in their order, and the ids of the layers they make
jobs      what one worker does with one unit: a part, or a shard
run       units -> Ray actors: elastic pools, bounded retries, counters
curate    the commands curate, select, export, report as functions
cli       the `lavie` command
"""
