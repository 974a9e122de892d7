"""Everything a user can say about predicting: one typed definition for Python, command line and YAML file."""

from __future__ import annotations

from dataclasses import dataclass

from tfnas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Settings of a prediction.

    Raises:
        InputError: A value is outside its range, or there is no image.
    """

    images: tuple[str, ...] = ()
    """Pictures, and folders whose pictures are taken, those of sub-folders too."""
    model_path: str
    """Run directory of a finished training run, a model.pt, or an ONNX file of tfnas export."""
    top: int = 5
    """Most probable classes to tell for each image."""
    json: bool = False
    """Print one JSON object per image and line, with every probability as it is."""
    batch_size: int = 32
    """Images that are computed at once."""
    seed: int = 2
    """Taken by every command; nothing is drawn here, so it changes nothing."""
    device: str = "auto"
    """auto (the first GPU if there is one), cpu, cuda or cuda:N. ONNX files run on the processor."""
    threads: int | None = None
    """Processor threads that compute. Default: the library's own number."""

    def __post_init__(self) -> None:
        if not self.images:
            raise InputError("give one or more pictures, or folders of pictures")
        for name in ("top", "batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
