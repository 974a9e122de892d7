"""What a table is checked against: random networks of its space and some of its blocks, and where they are timed."""

from __future__ import annotations

import dataclasses
import random
import warnings
from dataclasses import dataclass

import numpy as np

from tfnas.bench.bench_config import CheckConfig
from tfnas.bench.benches import Bench, as_measured, open_bench, reference_case, table_conditions
from tfnas.bench.benchmark_cases import (
    BenchmarkCase,
    block_case,
    network_case,
    random_architectures,
    structure_case,
    structure_reference_case,
    unit_case,
)
from tfnas.bench.structure_points import random_walk
from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.core.space import SearchSpace
from tfnas.latency.authors_table import LatencyTableWarning
from tfnas.latency.correction_fit import FloatArray, MeasuredNetworks, SmallestParts, smallest_parts
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import table_space
from tfnas.latency.structure_table import AnyTable, NotInTable, StructureTable, load_table, table_family
from tfnas.latency.table_contents import BuildReport, Measurement, runtime_text
from tfnas.spaces.mbconv.table_keys import latency_key
from tfnas.spaces.zen.unit_shapes import CLASSIFIER
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily

_BLOCKS = 12
_MUTATIONS_BETWEEN = 7
_TRIES = 50
_NOT_SLOW = 0.75


@dataclass(frozen=True, eq=False)
class CheckedSubject:
    """What is timed for a table of some kind: the `reference`, networks of the `space` and `blocks` of the table.

    For each network: the case, the number of its blocks, the uncorrected sum of the table. Each block has the table's
    uncorrected milliseconds. `smallest` are the table's lowest.
    """

    space: str
    reference: BenchmarkCase
    networks: list[NetworkArchitecture]
    cases: list[BenchmarkCase]
    num_blocks: list[int]
    sum_ms: list[float]
    blocks: list[tuple[BenchmarkCase, float]]
    smallest: SmallestParts


@dataclass(frozen=True, eq=False)
class CheckInputs:
    """A table, what it is held against, and the bench."""

    table: AnyTable
    measurement: Measurement
    subject: CheckedSubject
    bench: Bench

    @property
    def measurement_report(self) -> BuildReport | None:
        """How the table was built, if it says so, and with the same reference as here."""
        build = self.table.contents.build
        return build if build is not None and build.reference == self.subject.reference.name else None

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

    def samples(self, measured_ms: FloatArray) -> MeasuredNetworks:
        """The networks with their uncorrected sums."""
        return MeasuredNetworks(
            sum_ms=np.array(self.subject.sum_ms),
            blocks=np.array(self.subject.num_blocks, dtype=np.float64),
            measured_ms=measured_ms,
        )


def open_inputs(config: CheckConfig) -> CheckInputs:
    """Read the table, find its space, open the bench and draw the networks.

    Warns where the device or the runtime's version is another than the table's. Raises InputError for a table that was
    not measured by this package, whose space is not known or does not fit, or whose device is not at hand.
    """
    table = load_table(config.lookup_path)
    conditions = table_conditions(table, config.device)
    measurement = table.contents.measurement
    assert measurement is not None  # else there are no conditions
    if measurement.worker and config.worker is None:
        raise InputError(
            f"{table.source} was measured on another machine ({measurement.device}): give the command that reaches "
            'it, such as --worker "ssh pi@raspberrypi python3 -"'
        )
    if isinstance(table, StructureTable):
        subject = _structures(table, table_family(table, config.space), config)
    else:
        subject = _block_networks(table, table_space(table, config.space), measurement, config)
    with as_measured(table):
        bench = open_bench(conditions, subject.reference, config.worker, config.seed, config.worker_timeout)
    inputs = CheckInputs(table, measurement, subject, bench)
    _warn_of_differences(inputs)
    return inputs


def _block_networks(
    table: LatencyTable, space: SearchSpace, measurement: Measurement, config: CheckConfig
) -> CheckedSubject:
    """Of a table of MBConv blocks."""
    plain = LatencyTable(dataclasses.replace(table.contents, correction=None), table.source)
    networks = random_architectures(space, config.num_networks, measurement.num_classes, config.seed)
    return CheckedSubject(
        space=space.name,
        reference=reference_case(space),
        networks=[*networks],
        cases=[network_case(network) for network in networks],
        num_blocks=[len(network.blocks) for network in networks],
        sum_ms=[plain.architecture_ms(network) for network in networks],
        blocks=_blocks_again(space, plain, config.seed),
        smallest=smallest_parts(plain),
    )


def _structures(table: StructureTable, family: ZenFamily, config: CheckConfig) -> CheckedSubject:
    """Of a table of structures."""
    networks, sums = random_structures(table, family, config.num_networks, config.seed)
    points = table.contents.points
    usual_ms = float(np.quantile([timing.ms for timing in points.values()], _NOT_SLOW))
    usual = [shape for shape, timing in points.items() if timing.ms <= usual_ms]
    again = random.Random(f"blocks {config.seed}").sample(usual, min(_BLOCKS, len(usual)))
    of_classifiers, of_units = (
        [timing.ms for shape, timing in points.items() if (shape.block_type == CLASSIFIER) == wanted]
        for wanted in (True, False)
    )
    return CheckedSubject(
        space=table.contents.measurement.space,
        reference=structure_reference_case(family.initial),
        networks=[*networks],
        cases=[structure_case(network) for network in networks],
        num_blocks=[units for _, units in sums],
        sum_ms=[ms for ms, _ in sums],
        blocks=[(unit_case(shape), points[shape].ms) for shape in again],
        smallest=SmallestParts(min(of_classifiers), min(of_units)),
    )


def random_structures(
    table: StructureTable, family: ZenFamily, count: int, seed: int
) -> tuple[list[StructureArchitecture], list[tuple[float, int]]]:
    """Random networks of a family that a table prices, with their sums and numbers of units.

    Raises InputError where the table prices hardly any.
    """
    walk = random_walk(family, np.random.default_rng(seed))
    networks: list[StructureArchitecture] = []
    sums: list[tuple[float, int]] = []
    for number in range(1, _TRIES * _MUTATIONS_BETWEEN * count):
        network = next(walk)
        if number % _MUTATIONS_BETWEEN or len(networks) == count:
            continue
        try:
            sums.append(table.sum_ms(network))
            networks.append(network)
        except NotInTable as error:
            reason = error
    if len(networks) < count:
        raise InputError(f"hardly any random network of space {table.contents.measurement.space} is covered: {reason}")
    return networks, sums


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


def _warn_of_differences(inputs: CheckInputs) -> None:
    measurement, bench = inputs.measurement, inputs.bench
    if inputs.other_device:
        warnings.warn(
            f"{inputs.table.source} was measured on {measurement.device}; this is {bench.device_name}: it "
            "is compared but not corrected",
            LatencyTableWarning,
            stacklevel=3,
        )
    if inputs.other_version is not None:
        words = f"{inputs.table.source} {inputs.other_version}: it is compared but not corrected"
        warnings.warn(words, LatencyTableWarning, stacklevel=3)
