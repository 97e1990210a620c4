"""Logos burnt on footage, for `benchmarks/logos.py`."""
