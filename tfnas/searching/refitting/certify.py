"""`certify_file`: the latency of an exported file or a trained network here, with a confidence interval."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tfnas.bench.timing import TimingSample, call_ms, steady, wait_for
from tfnas.core import __version__
from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.core.space import IMAGE_CHANNELS
from tfnas.export.export_report import model_behind
from tfnas.latency.table_contents import Conditions
from tfnas.runs.architecture_source import named_source
from tfnas.runs.intended import Intended, intended_for
from tfnas.runs.model_file import MODEL_FILE, TrainedModel
from tfnas.searching.refitting.certificate import (
    Budget,
    Certificate,
    Length,
    MeasuredUnder,
    OnSpent,
    Verdict,
    calls_per_sample,
    certificate_lines,
    measure_fixed,
    verdict_text,
)
from tfnas.searching.refitting.refit_config import FORMAT, CertifyConfig
from tfnas.searching.refitting.refit_loop import LEAST_SECONDS, PRECISION
from tfnas.spaces.families import build_network
from tfnas.utils.devices import check_threads, device_name, instruction_sets, load_average, named_device
from tfnas.utils.files import check_writable, write_whole
from tfnas.utils.text import parse_seconds, parse_share

VERSION = 1

_WARMUP = 3
_PILOT_SHARE = 1 / 6

Call = Callable[[], object]
Sampler = Callable[[Call], Iterator[TimingSample]]


@dataclass(frozen=True, kw_only=True)
class FileCertificate:
    """Latency of a file: its certificate, the conditions, and with a target the verdict.

    `sha256` and `size_bytes` identify the file, or the text of an architecture that was timed without one. `warning` is
    the reason why its outputs may be wrong on this processor, `intended` the target of its search.
    """

    file: str
    sha256: str
    size_bytes: int
    architecture: str
    found: Certificate
    under: MeasuredUnder
    epsilon: float
    target_ms: float | None
    verdict: Verdict | None
    written: str
    warning: str | None = None
    intended: Intended | None = None

    def to_json(self) -> dict[str, Any]:
        """Contents of FILE.certificate.json."""
        supported = None if self.target_ms is None else self.found.supported_epsilon(self.target_ms)
        return {
            "format": FORMAT,
            "version": VERSION,
            "file": self.file,
            "sha256": self.sha256,
            "bytes": self.size_bytes,
            "architecture": self.architecture,
            "target_ms": self.target_ms,
            "epsilon": self.epsilon,
            "verdict": self.verdict,
            "supported_epsilon": supported,
            "warning": self.warning,
            "certificate": {**self.found.to_json(), "conditions": self.under.to_json()},
        }

    def lines(self) -> list[str]:
        """Lines of text, without the path of the certificate."""
        first, *more = certificate_lines(self.found)
        lines = [
            f"file      {self.file}",
            f"          {self.size_bytes} bytes, sha256 {self.sha256}",
            f"measured  {first}",
            *(f"          {line}" for line in more),
            f"          {self.under.description}",
        ]
        if self.target_ms is not None:
            lines.append(f"target    {verdict_text(self.found, self.target_ms, self.epsilon)}")
        elif self.found.half_width > self.epsilon:
            lines.append(
                f"warning: noise is larger than {100 * self.epsilon:g} %: a quieter machine or a longer --time_budget "
                "narrows the interval"
            )
        made = self.intended
        if made is not None and (made.batch_size, made.threads) != (self.under.batch_size, self.under.threads):
            lines.append(f"note      the target of its search was {made.words}: {made.flags} tests against it")
        elif made is not None and self.target_ms is None:
            lines.append(f"note      the target of its search was {made.words}: --target_lat {made.target_ms:g}")
        return lines


@dataclass(frozen=True, eq=False)
class _OpenedFile:
    """A file ready to be timed: a function that calls it once, and the conditions."""

    architecture: str
    call: Call
    conditions: Conditions
    versions: dict[str, str]
    warning: str | None = None


def certify_file(
    config: CertifyConfig,
    *,
    samples: Sampler | None = None,
    clock: Callable[[], float] = time.monotonic,
    on_spent: OnSpent = lambda *_: None,
    on_found: Callable[[FileCertificate], None] = lambda _: None,
) -> FileCertificate:
    """Time a file until its interval is a third of epsilon, as estimated from a pilot, and write the certificate.

    `samples` times calls of a function, by default on this machine; `clock` returns the seconds used by the time
    budget. `on_spent` is called with the progress, `on_found` with the result before it is written.

    Raises InputError when there is no such file, when it is damaged or not safe to run, or for more threads than
    cores; RunFailed when the certificate cannot be written.
    """
    path = _file(Path(config.file[0])) if config.file else Path(config.subject)
    target = config.target(path)
    check_writable(target)
    epsilon, most = parse_share("epsilon", config.epsilon), parse_seconds("time_budget", config.time_budget)
    check_threads(config.threads)
    source = None if config.file else named_source(config)
    data = _read(path) if source is None else source.architecture.to_text().encode()
    with steady(config.threads):
        opened = _open(path, data, config) if source is None else _untrained(source.architecture, config)
        before = load_average()
        calls = (samples or _timed_samples)(opened.call)
        found = measure_fixed(calls, _length(epsilon, most), Budget(most, clock), on_spent)
        after = load_average()
    verdict = None if config.target_lat is None else found.verdict(config.target_lat, epsilon)
    report = FileCertificate(
        file=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        architecture=opened.architecture,
        found=found,
        under=_measured_under(opened, None if before is None or after is None else (before, after)),
        epsilon=epsilon,
        target_ms=config.target_lat,
        verdict=verdict,
        written=str(target),
        warning=opened.warning,
        intended=intended_for(model_behind(path), opened.architecture),
    )
    on_found(report)
    write_whole(target, json.dumps(report.to_json(), indent=2) + "\n")
    return report


def _measured_under(opened: _OpenedFile, load: tuple[float, float] | None) -> MeasuredUnder:
    return MeasuredUnder.of(
        opened.conditions,
        device_name(torch.device(opened.conditions.device)),
        {**opened.versions, "tfnas": __version__, "python": platform.python_version()},
        instruction_sets=instruction_sets() if opened.conditions.device_kind == "cpu" else (),
        load=load,
    )


def _length(epsilon: float, most_seconds: float) -> Length:
    pilot_seconds = min(LEAST_SECONDS, _PILOT_SHARE * most_seconds)
    return Length(half_width=PRECISION * epsilon, pilot_seconds=pilot_seconds, most_seconds=most_seconds)


def _file(path: Path) -> Path:
    """The file itself, or the model of a run directory."""
    if path.is_dir():
        if not (path / MODEL_FILE).is_file():
            TrainedModel.load(path)  # raises the error that names what is missing
        return path / MODEL_FILE
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give an exported .onnx, a model.pt or its run directory")
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path") from error


def _open(path: Path, data: bytes, config: CertifyConfig) -> _OpenedFile:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return _onnx(path, data, config)
    if suffix == ".pt2":
        raise InputError(
            f"{path}: loading a .pt2 file can execute code, so .pt2 files are not accepted. Certify the ONNX "
            f"export of the same network, or its {MODEL_FILE}"
        )
    return _trained(path, config)


def _onnx(path: Path, data: bytes, config: CertifyConfig) -> _OpenedFile:
    if config.device != "cpu":
        raise InputError(f"--device is {config.device}, but ONNX files are timed on the CPU; omit --device")
    import onnx
    import onnxruntime  # type: ignore[import-untyped]

    from tfnas.export.onnx_model import OnnxModel, number_type

    model = OnnxModel.from_bytes(data, str(path), threads=config.threads)
    if model.batch_size not in (None, config.batch):
        raise InputError(f"--batch is {config.batch}, but {path} accepts exactly {model.batch_size} images per call")
    (name,) = (entry.name for entry in model.session.get_inputs())
    images = {name: _images(config, model.preprocessing.image_size).numpy()}

    def call() -> object:
        return model.session.run(None, images)

    try:
        call()
    except Exception as error:  # onnxruntime's errors have no common base
        raise InputError(f"{path} cannot be run by onnxruntime: {' '.join(str(error).split())[:300]}") from error
    conditions = _conditions("onnxruntime", config, number_type(onnx.load_model_from_string(data)))
    return _OpenedFile(model.architecture, call, conditions, {"onnxruntime": onnxruntime.__version__}, model.warning)


def _trained(path: Path, config: CertifyConfig) -> _OpenedFile:
    model = TrainedModel.load(path)
    return _called(model.network(), model.architecture, model.preprocessing.image_size, config)


def _called(network: nn.Module, architecture: NetworkArchitecture, size: int, config: CertifyConfig) -> _OpenedFile:
    device = named_device(config.device)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = _images(config, size, architecture.in_channels).to(device).contiguous(memory_format=torch.channels_last)

    def call() -> Tensor:
        logits: Tensor = network(images)
        wait_for(device)
        return logits

    dtype = next(network.parameters()).dtype
    conditions = _conditions("torch", config, str(dtype).removeprefix("torch."))
    return _OpenedFile(architecture.to_text(), call, conditions, {"torch": torch.__version__})


def _untrained(architecture: NetworkArchitecture, config: CertifyConfig) -> _OpenedFile:
    """A network with random weights, which take as long as trained ones."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        network = build_network(architecture).eval()
    return _called(network, architecture, architecture.image_size, config)


def _conditions(runtime: str, config: CertifyConfig, dtype: str) -> Conditions:
    return Conditions(
        runtime=runtime,
        device=str(named_device(config.device)),
        batch_size=config.batch,
        threads=config.threads,
        dtype=dtype,
    )


def _images(config: CertifyConfig, size: int, channels: int = IMAGE_CHANNELS) -> Tensor:
    generator = torch.Generator().manual_seed(config.seed)
    return torch.rand(config.batch, channels, size, size, generator=generator)


def _timed_samples(call: Call) -> Iterator[TimingSample]:
    """Endless samples of a quarter of a second each."""
    first_ms = [call_ms(call) for _ in range(_WARMUP)][-1]
    while True:
        yield TimingSample(tuple(call_ms(call) for _ in range(calls_per_sample(first_ms))), ())
