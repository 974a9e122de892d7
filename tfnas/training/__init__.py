"""Training a derived network from scratch or from the supernet, on one device or many."""

from tfnas.utils.lazy_names import moved_names

__getattr__ = moved_names(__name__)
