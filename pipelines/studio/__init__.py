"""A page on this machine to try the cascade: prompt in, video out, earlier samples beside it."""
