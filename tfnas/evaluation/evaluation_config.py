"""Settings of a test and of a prediction: one typed definition each for Python, command line and YAML file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tfnas.core.errors import InputError
from tfnas.runs.named_network import check_named_once, check_weights_named
from tfnas.utils.files import check_writable

DEFAULT_FOLDER = "test-results"
RUN_FOLDER = "test"
_ONNX_SUFFIX = ".onnx"
RESULT_FILES = REPORT_FILE, PICTURE_FILE, TABLE_FILE = "test.json", "confusion.png", "per_class.csv"


def is_onnx(path: str | Path) -> bool:
    """Whether a path names an ONNX file, by its ending."""
    return Path(path).suffix.lower() == _ONNX_SUFFIX


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of a test.

    Raises:
        InputError: A value is outside its range, or the network or the images are not named.
    """

    model_path: str | None = None
    """Run directory of a finished training run, a model.pt, or an exported .onnx. With --weights, the architecture
    only: model.config, architecture.json, or a search's run directory or checkpoint, ours or the TF-NAS authors'."""
    config_path: str | None = None
    """The network in a file of its own, such as model.config, architecture.json or a structure's text; goes with
    --weights."""
    arch: str | None = None
    """The network by its name in the zoo, such as deepmad-R18, or by its text; goes with --weights."""
    weights: str | None = None
    """Its weights: checkpoint.pth.tar or model_best.pth.tar of the TF-NAS authors' program, a model.pt, or a bare state
    dict."""
    val_root: str | None = None
    """Folder of the images: the root of the paths in the list, or the parent of one folder per class. Default: the test
    images of the training run."""
    val_list: str | None = None
    """Image list, one `path label` per line."""
    class_names: str | None = None
    """File with one class name per line, in the order of the network's classes. Default: the names in model.pt."""
    num_classes: int | None = None
    """Expected number of classes. Default: that of the weights."""
    image_size: int | None = None
    """Side of the square input in pixels. Default: the network's own; 224 for a model.config."""
    batch_size: int = 100
    """Images per batch."""
    seed: int = 2
    """Accepted for consistency; this command uses no random numbers."""
    device: str = "auto"
    """auto (the first GPU if there is one), cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads. Default: PyTorch's own number."""
    workers: int | None = None
    """Loader processes. Default: 0 for data in memory (digits, CIFAR), otherwise the number of cores, up to 16."""
    print_freq: float = 10.0
    """Seconds between progress lines; 0 for none."""
    out: str | None = None
    """Folder to write the results to. Default: test in the run directory, else ./test-results."""

    def __post_init__(self) -> None:
        for name, least in (("num_classes", 2), ("image_size", 1), ("batch_size", 1), ("threads", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        if not 0 <= self.print_freq < float("inf"):
            raise InputError(f"print_freq is {self.print_freq}; give seconds, or 0")
        self._check_network()
        if self.val_list is not None and self.val_root is None:
            raise InputError(f"--val_list {self.val_list} needs --val_root, the folder that its paths are relative to")
        if self.weights is not None and is_onnx(self.model_path or ""):
            raise InputError(f"--model_path {self.model_path} already contains weights: omit --weights")
        if self.weights is not None and self.val_root is None:
            raise InputError("--weights does not include images: give --val_root (and --val_list)")

    def _check_network(self) -> None:
        check_named_once(self, "RUN", weights=self.weights)
        check_weights_named(self, self.weights)

    def folder(self, run_dir: Path | None, name: str = RUN_FOLDER) -> Path:
        """The folder to write to: `name` in the run directory where none is given.

        Raises InputError, before any work is done, when it cannot be written to.
        """
        if self.out is not None:
            folder = Path(self.out)
        else:
            folder = Path(DEFAULT_FOLDER) if run_dir is None else run_dir / name
        try:
            there = next(path for path in (folder, *folder.absolute().parents) if _is_there(path))
        except OSError as error:
            raise InputError(f"out is {folder}, which cannot be accessed: {error.strerror}; choose another") from error
        if not there.is_dir():
            raise InputError(f"out is {folder}, but {there} is a file; give a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"out is {folder}, but {there} is not writable; give another folder with --out")
        for name in RESULT_FILES:
            check_writable(folder / name)
        return folder


def _is_there(path: Path) -> bool:
    """Whether it exists. Raises OSError if that cannot be determined: too long a name, no permission."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Settings of a prediction.

    Raises:
        InputError: A value is outside its range, or there is no image.
    """

    images: tuple[str, ...] = ()
    """Images, or folders of images, including sub-folders."""
    model_path: str | None = None
    """Run directory of a finished training run, a model.pt, or an ONNX file of tfnas export. With --weights, the
    architecture only."""
    config_path: str | None = None
    """The network in a file of its own, such as architecture.json; goes with --weights."""
    arch: str | None = None
    """The network by its name in the zoo or by its text; goes with --weights."""
    weights: str | None = None
    """Its weights: a model.pt, a state dict, or weights as the program published them."""
    top: int = 5
    """Number of most probable classes to print per image."""
    json: bool = False
    """Print one JSON object per line and image, with unrounded probabilities."""
    batch_size: int = 32
    """Images per batch."""
    seed: int = 2
    """Accepted for consistency; this command uses no random numbers."""
    device: str = "auto"
    """auto (the first GPU if there is one), cpu, cuda or cuda:N. ONNX files run on the CPU."""
    threads: int | None = None
    """CPU threads. Default: the library's own number."""

    def __post_init__(self) -> None:
        if not self.images:
            raise InputError("give one or more images, or folders of images")
        check_named_once(self, "RUN", weights=self.weights)
        check_weights_named(self, self.weights)
        for name in ("top", "batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
