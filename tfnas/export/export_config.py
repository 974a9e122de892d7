"""Settings of an export: one typed definition for Python, command line and YAML file."""

from __future__ import annotations

import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tfnas.core.errors import InputError
from tfnas.runs.named_network import check_named_once, check_weights_named

Format: TypeAlias = Literal["onnx", "torch_export"]
Dtype: TypeAlias = Literal["float32", "float16", "bfloat16"]
Quantize: TypeAlias = Literal["int8", "int8_vnni"]

QUANTIZED: tuple[str, ...] = typing.get_args(Quantize)
NEEDS: dict[str, str] = {"int8_vnni": "x86 with VNNI, or Arm"}
"""The processors that a kind of file needs, where it does not run on all."""
OPSETS = range(14, 27)
"""Those that all networks can be converted to and onnxruntime 1.32 has run; below 14 onnx has no way down for Sub."""
DYNAMIC = "dynamic"
REPORT_SUFFIX = ".json"
_MODEL_FILE = "model.pt"
_FILES_OF_RUN = (
    *(_MODEL_FILE, "config.yaml", "log.txt", "model.config", "architecture.json", "structure.txt", "summary.json"),
)
_SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch_export": ".pt2"}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of an export.

    Raises:
        InputError: A value is outside its range, or two do not go together.
    """

    model_path: str | None = None
    """Run directory of a finished training run, or a model.pt. With --weights, the architecture only."""
    config_path: str | None = None
    """The network in a file of its own, such as architecture.json; goes with --weights."""
    arch: str | None = None
    """The network by its name in the zoo or by its text; goes with --weights."""
    weights: str | None = None
    """Its weights: a model.pt, a state dict, or weights as the program published them."""
    format: Format = "onnx"
    """Kind of file to write."""
    out: str | None = None
    """File to write; an existing one is replaced. Default: model.onnx, model.int8.onnx, model.pt2 or the like next to
    the model."""
    image_size: int | None = None
    """Side of the input in pixels. Default: the model's own."""
    batch: str = DYNAMIC
    """Images per call: dynamic for any number, or a fixed number."""
    dtype: Dtype = "float32"
    """Internal number type; input and logits are always float32. bfloat16 requires torch_export."""
    quantize: Quantize | None = None
    """Quantise to 8-bit integers (onnx only), calibrated on training images. int8 is correct on every processor;
    int8_vnni has one more bit per weight and is computed incorrectly by x86 processors without VNNI."""
    opset: int | None = None
    """Version of ONNX's operators, 14 to 26. Default: 18. Older runtimes may need a lower one."""
    calibration_images: int = 256
    """Training images that int8 is calibrated on."""
    check_images: int = 1000
    """Maximum number of random test images used to check the file."""
    img_root: str | None = None
    """Folder of images (including sub-folders) for calibration and checks, instead of the run's images. Accuracy is
    reported if the sub-folders are named after the classes."""
    measure_batch: int = 32
    """Batch size that is timed in addition to single images."""
    threads: int = 1
    """CPU threads to check and time with."""
    seed: int = 2
    """Seed of the images to check and calibrate with."""

    def __post_init__(self) -> None:
        check_named_once(self, "RUN", weights=self.weights)
        check_weights_named(self, self.weights)
        for name in ("image_size", "calibration_images", "check_images", "measure_batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be 1 or more, got {value}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be 0 to 2**63 - 1, got {self.seed}")
        if self.batch != DYNAMIC and not (self.batch.isascii() and self.batch.isdigit() and int(self.batch) > 0):
            raise InputError(f"batch must be {DYNAMIC} or a whole number above 0, got {self.batch!r}")
        for name, kinds in (("format", Format), ("dtype", Dtype), ("quantize", Quantize)):
            choices = typing.get_args(kinds) + ((None,) if kinds is Quantize else ())
            if getattr(self, name) not in choices:
                words = ", ".join(str(choice) for choice in choices if choice)
                raise InputError(f"{name} must be one of {words}, got {getattr(self, name)!r}")
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Raise InputError for settings that do not go together."""
        if self.opset is not None and self.format != "onnx":
            raise InputError(f"opset {self.opset} goes with --format onnx only, not with {self.format}")
        if self.opset is not None and self.opset not in OPSETS:
            raise InputError(
                f"opset is {self.opset}; these networks are written in {OPSETS[0]} to {OPSETS[-1]}, which have all "
                "their operators and have been run"
            )
        if self.format == "onnx" and self.dtype == "bfloat16":
            raise InputError(
                "dtype bfloat16 is not supported in ONNX, whose convolutions do not accept it, so nothing could "
                "run and check the file. Use float16, or --format torch_export"
            )
        if self.quantize and self.format != "onnx":
            raise InputError(f"quantize {self.quantize} goes with --format onnx only, not with {self.format}")
        if self.quantize and self.dtype != "float32":
            raise InputError(f"quantize {self.quantize} starts from float32; omit --dtype {self.dtype}")

    @property
    def batch_size(self) -> int | None:
        """Images per call, None for any number."""
        return None if self.batch == DYNAMIC else int(self.batch)

    @property
    def kind(self) -> str:
        """The number type of most of the file: `float32`, `int8` and so on."""
        return self.quantize or self.dtype

    @property
    def place(self) -> str:
        """What has the weights: a run directory or a file."""
        return self.weights or self.model_path or ""

    def target(self) -> Path:
        """The file to write.

        Raises InputError when its folder is missing, when it is a folder, and when the model or another file of its run
        would be replaced, by the file or by the report next to it.
        """
        given = Path(self.place)
        folder = given if os.path.isdir(given) else given.parent  # noqa: PTH112 - answers "no" where Path.is_dir raises
        middle = "" if self.kind == "float32" else f".{self.kind}"
        path = folder / f"model{middle}{_SUFFIXES[self.format]}" if self.out is None else Path(self.out)
        if os.path.isdir(path):  # noqa: PTH112
            raise InputError(f"out is {path}, a folder; give a file in it, such as {path / 'model.onnx'}")
        if not os.path.isdir(path.parent):  # noqa: PTH112
            raise InputError(f"out is {path}, but there is no folder {path.parent}; make it first")
        model = given if folder != given else folder / _MODEL_FILE
        precious = {os.path.realpath(folder / name) for name in _FILES_OF_RUN} - {os.path.realpath(model)}
        for file in (str(path), f"{path}{REPORT_SUFFIX}"):
            if os.path.realpath(file) == os.path.realpath(model):
                raise InputError(f"out is {path}, the model that is to be exported; choose another name")
            if os.path.realpath(file) in precious:
                raise InputError(f"out is {path}, which would replace {file} of the run; choose another name")
        return path
