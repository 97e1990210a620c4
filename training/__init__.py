"""From shards to weights: data, networks, the three stages of the cascade, the trainer."""
