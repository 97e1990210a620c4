"""Model files: which there are (`catalog`), how they get here (`fetch`), and torchvision beside CPU torch."""
