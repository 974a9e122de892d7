"""What a check measures: random networks of a table's space, and some of its blocks again."""

from __future__ import annotations

import dataclasses
import random
import warnings
from dataclasses import dataclass

from tfnas.bench.benchmark_cases import BenchmarkCase, block_case, random_architectures
from tfnas.bench.check_config import CheckConfig
from tfnas.bench.local_bench import Bench
from tfnas.bench.open_bench import as_measured, conditions_of, open_bench, reference_of
from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace
from tfnas.latency.authors_table import LatencyTableWarning
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import space_of
from tfnas.latency.table_contents import BuildReport, Measurement, runtime_text
from tfnas.spaces.mbconv.table_keys import latency_key

_BLOCKS = 12


@dataclass(frozen=True, eq=False)
class CheckSubject:
    """A table and what it is held against; `plain` is the table without its correction."""

    table: LatencyTable
    plain: LatencyTable
    measurement: Measurement
    space: SearchSpace
    bench: Bench
    reference: BenchmarkCase
    networks: list[Architecture]
    blocks: list[tuple[BenchmarkCase, float]]
    """Blocks at widths that were measured, with the plain table's milliseconds."""

    @property
    def measurement_report(self) -> BuildReport | None:
        """How the table was built, where it says so, and beside the same reference as here."""
        build = self.table.contents.build
        return build if build is not None and build.reference == self.reference.name else None

    @property
    def other_device(self) -> bool:
        """Whether this is another processor or GPU than the table's."""
        return self.bench.device_name != self.measurement.device

    @property
    def runtime_here(self) -> str:
        """What runs the networks, with its version."""
        return runtime_text(self.measurement.runtime, self.bench.versions)

    @property
    def other_version(self) -> str | None:
        """That the table was measured with another version of the runtime, in words; None where it was not, or does
        not say.
        """
        versions, here = self.measurement.versions, self.bench.versions
        for name in (self.measurement.runtime, self.measurement.runtime.partition("-")[0]):
            if name in versions and name in here and versions[name] != here[name]:
                return f"was measured with {name} {versions[name]}; this is {name} {here[name]}"
        return None


def open_subject(config: CheckConfig) -> CheckSubject:
    """Read the table, find its space, open the bench and draw the networks.

    Warns where the device or the runtime's version is another than the table's. Raises InputError for a table that was
    not measured by this package, whose space is not known or does not fit, or whose device is not at hand.
    """
    table = LatencyTable.load(config.lookup_path)
    conditions = conditions_of(table, config.device)
    measurement = table.contents.measurement
    assert measurement is not None  # else there are no conditions
    if measurement.worker and config.worker is None:
        raise InputError(
            f"{table.source} was measured on another machine ({measurement.device}): give the command that reaches "
            'it, such as --worker "ssh pi@raspberrypi python3 -"'
        )
    space = space_of(table, config.space)
    reference = reference_of(space)
    with as_measured(table):
        bench = open_bench(conditions, reference, config.worker, config.seed, config.worker_timeout)
    plain = LatencyTable(dataclasses.replace(table.contents, correction=None), table.source)
    networks = random_architectures(space, config.num_networks, measurement.num_classes, config.seed)
    blocks = _blocks_again(space, plain, config.seed)
    subject = CheckSubject(table, plain, measurement, space, bench, reference, networks, blocks)
    _warn_of_differences(subject)
    return subject


def _blocks_again(space: SearchSpace, plain: LatencyTable, seed: int) -> list[tuple[BenchmarkCase, float]]:
    """Some blocks of the table, each at a width that was measured, or where the space allows none at its least."""
    rng = random.Random(f"blocks {seed}")
    choices = [(place, operation) for place in space.blocks for operation in space.operations]
    found: dict[str, tuple[BenchmarkCase, float]] = {}
    for place, operation in rng.sample(choices, len(choices)):
        allowed = space.widths(place, operation)
        block = space.block(place, operation, allowed[0])
        key = latency_key(block, place.input_size)
        measured = plain.contents.curves[key].widths
        widths = [width for width in measured if width in allowed] or [allowed[0]]
        if key not in found and len(found) < _BLOCKS:
            block = space.block(place, operation, rng.choice(widths))
            found[key] = block_case(block, place.input_size), plain.block_ms(block, place.input_size)
    return list(found.values())


def _warn_of_differences(subject: CheckSubject) -> None:
    measurement, bench = subject.measurement, subject.bench
    if subject.other_device:
        warnings.warn(
            f"{subject.table.source} was measured on {measurement.device}; this is {bench.device_name}: what it "
            "says is compared, and not corrected",
            LatencyTableWarning,
            stacklevel=3,
        )
    if subject.other_version is not None:
        words = f"{subject.table.source} {subject.other_version}: what it says is compared, and not corrected"
        warnings.warn(words, LatencyTableWarning, stacklevel=3)
