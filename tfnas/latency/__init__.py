"""Cost tables: milliseconds (or MACs, ...) per block and width, and architectures fitted to them."""

from tfnas.utils.lazy_names import moved_names

__getattr__ = moved_names(__name__)
