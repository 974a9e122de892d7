"""Output of the parsing command: a table of the network's parts, totals, and timings, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tfnas.bench.timing import NETWORK_THREADS, NetworkTiming
from tfnas.core.mbconv_blocks import Block, Conv
from tfnas.core.units import PLAIN, Unit
from tfnas.latency.default_table import other_conditions
from tfnas.runs.architecture_source import UNFINISHED
from tfnas.searching.parsing import NetworkPart, ParsedNetwork
from tfnas.spaces.zen.zen_family import StructureArchitecture
from tfnas.utils.progress import waiting
from tfnas.utils.text import percent, print_whole, say, short

_COLUMNS = ("part", "operation", "in", "out", "width", "SE", "stride", "size", "ms", "MACs", "params")
_TEXT_COLUMNS = ("part", "operation")


def print_report(console: Console, parsed: ParsedNetwork, written: Iterable[Path]) -> None:
    """Print the parts, totals, notes and files."""
    table = _table()
    previous = ""
    for part in parsed.parts:
        stage = part.label.partition(".")[0] if "." in part.label else ""
        if stage != previous:
            table.add_row()
        table.add_row(*_cells(part))
        previous = stage
    print_whole(console, table)
    console.print()
    for name, text in _totals(parsed, written):
        say(console, f"{name:<11}{text}")


def print_timings(console: Console, parsed: ParsedNetwork, timings: Iterable[NetworkTiming]) -> None:
    """Print every timing as soon as it is known; at the table's batch size with the table latency."""
    console.print()
    say(console, "measured here, float32, random weights: median and interquartile range")
    with waiting(console, "timing the network"):
        for found in timings:
            timing = found.timing
            numbers = f"{timing.median_ms:10.3f} ms +- {timing.spread_ms:.3f} ms of {timing.runs:>2} runs"
            say(console, f"batch {found.batch_size:<4}{numbers}   {found.device}{_against_table(parsed, found)}")


def _against_table(parsed: ParsedNetwork, found: NetworkTiming) -> str:
    if parsed.table is None or parsed.table_ms is None or found.batch_size != parsed.table.batch_size:
        return ""
    measurement = parsed.table.contents.measurement
    other = [] if measurement is None else other_conditions(measurement, found.device_name, NETWORK_THREADS)
    return f"; table latency {parsed.table_ms:.3f} ms" + (f" ({', '.join(other)})" if other else "")


def _table() -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in _TEXT_COLUMNS else "right", no_wrap=True)
    return table


def _cells(part: NetworkPart) -> list[str]:
    operation, width, se, stride = _layer_cells(part.layer)
    return [
        *(part.label, operation, str(part.in_channels), str(part.out_channels), width, se, stride),
        str(part.input_size),
        "" if part.table_ms is None else f"{part.table_ms:.3f}",
        short(part.counts.macs),
        short(part.counts.params),
    ]


def _layer_cells(layer: Conv | Block | Unit | str | None) -> tuple[str, str, str, str]:
    """Operation, width, SE and stride."""
    match layer:
        case None:
            return "linear", "", "", ""
        case str():
            return layer, "", "", ""
        case Unit():
            conv = max(layer.convs, key=lambda conv: conv.kernel)
            se = "-" if layer.squeeze_excite is None else str(layer.squeeze_excite.squeezed)
            if layer.block_type == PLAIN:
                return f"conv k{conv.kernel}", "", "", str(layer.stride)
            return f"{layer.block_type} k{conv.kernel}", str(conv.out_channels), se, str(layer.stride)
        case Conv():
            return f"conv k{layer.kernel_size}", "", "", str(layer.stride)
        case Block():
            se = str(layer.se_channels) if layer.se_channels else "-"
            return f"MBConv k{layer.kernel_size}", str(layer.mid_channels), se, str(layer.stride)


def _totals(parsed: ParsedNetwork, written: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Labels and lines below the table."""
    architecture, counts = parsed.architecture, parsed.counts
    size, image, frames = architecture.image_size, "image", ""
    if isinstance(architecture, StructureArchitecture) and architecture.is_video:
        image, frames = "video", f"{architecture.frames} frames of "
    yield "read", parsed.source.kind
    yield "network", f"{frames}{size} x {size} pixels, {architecture.num_classes} classes"
    yield "parameters", f"{short(counts.params)} ({counts.params:,})"
    yield "MACs", f"{short(counts.macs)} ({counts.macs:,}) per {image}"
    if parsed.table is not None:
        figure = "" if parsed.table_ms is None else f"{parsed.table_ms:.4f} ms per batch: "
        yield "table", f"{figure}{parsed.table.description}"
        yield "", parsed.table.source
    if parsed.source.target is not None:
        what = "table latency" if parsed.cost.is_time else parsed.cost.unit
        error = "" if parsed.error_percent is None else f" ({what} {percent(parsed.error_percent)})"
        yield "target", f"{parsed.cost.quantity(parsed.source.target, 6)}{error}"
    for note in parsed.notes:
        yield "note", note
    paths = list(written)
    if not paths and parsed.source.kind == UNFINISHED:
        yield "written", "nothing: the search is not finished; --save_path FILE writes it all the same"
    for path in paths:
        yield "written", str(path)
