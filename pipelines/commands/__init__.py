"""The commands of `lavie`: frozen dataclasses whose fields are the flags, with a `run` method each."""
