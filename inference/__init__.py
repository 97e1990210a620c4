"""Weights and a prompt -> video: to come."""
