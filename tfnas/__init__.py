"""tfnas: images, a device and X milliseconds in; a trained network that measures X ms there out."""

from tfnas.architecture import Architecture
from tfnas.errors import Infeasible, InputError, Interrupted, RunFailed, TfnasError
from tfnas.space import SearchSpace
from tfnas.space_file import space

__all__ = ["Architecture", "Infeasible", "InputError", "Interrupted", "RunFailed", "SearchSpace", "TfnasError", "space"]
__version__ = "0.1.0"
