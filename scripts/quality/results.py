"""From trainings to what is claimed, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quality.statistics import Interval, difference, mean, mean_tau, share_ordered, spread, welch
from tfnas.core.architecture import Architecture
from tfnas.spaces.families import architecture_counts
from tfnas.utils.statistics import tau_with_interval

RANDOM = "random"
MEASURES = ("loss", "top1")

Groups = Mapping[str, Sequence[Architecture]]
Trainings = Mapping[str, Sequence[Mapping[str, float]]]
Latency = Mapping[str, Mapping[str, float]]


def results(
    groups: Groups, trainings: Trainings, latency: Latency, supernets: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything that the trainings say.

    Args:
        groups: Networks by what they are; `random` among them.
        trainings: By a network's text, test loss and top-1 of its trainings, the same seeds in the same order for all.
        latency: What timing said, by a network's text.
        supernets: Of every search, inherited top-1 and log-probability of the random networks.
    """
    return {
        "spread": {name: _spread(_values(groups[RANDOM], trainings, name)) for name in MEASURES},
        "groups": {name: _group(networks, groups[RANDOM], trainings, latency) for name, networks in groups.items()},
        "supernet": _supernet(groups[RANDOM], trainings, supernets),
        "networks": [
            {
                "group": name,
                "architecture": network.to_text(),
                "macs": architecture_counts(network).macs,
                "params": architecture_counts(network).params,
                **{measure: list(_values([network], trainings, measure)[0]) for measure in MEASURES},
                **latency.get(network.to_text(), {}),
            }
            for name, networks in groups.items()
            for network in networks
        ],
    }


def _values(networks: Sequence[Architecture], trainings: Trainings, measure: str) -> Any:
    """[networks, seeds]."""
    return np.array([[run[measure] for run in trainings[network.to_text()]] for network in networks])


def _spread(values: Any) -> dict[str, Any]:
    found = spread(values)
    return {"between": found.between, "within": found.within, "ratio": _plain(found.ratio)}


def _group(
    networks: Sequence[Architecture],
    at_random: Sequence[Architecture],
    trainings: Trainings,
    latency: Latency,
) -> dict[str, Any]:
    entry: dict[str, Any] = {"networks": len(networks)}
    measured = [latency[network.to_text()] for network in networks if network.to_text() in latency]
    for name in ("table_ms", "measured_ms"):
        entry[name] = float(np.mean([item[name] for item in measured])) if measured else None
    for measure in MEASURES:
        own, others = (_values(some, trainings, measure) for some in (networks, at_random))
        entry[measure] = _plain(mean(own))
        if networks is not at_random:
            entry[f"{measure}_less_random"] = _plain(difference(own, others))
            entry[f"{measure}_less_random_welch"] = _plain(welch(own, others))
            better = np.sign(own.mean(1)[:, None] - others.mean(1)[None, :])
            entry[f"{measure}_share_of_random_beaten"] = float((better == (-1 if measure == "loss" else 1)).mean())
    return entry


def _supernet(
    at_random: Sequence[Architecture], trainings: Trainings, supernets: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """How well inherited accuracy, log-probability and MACs foretell accuracy alone (a low loss, a high top-1)."""
    predicted = {name: np.array([entry[name] for entry in supernets]) for name in ("inherited", "preference")}
    predicted["macs"] = np.array([[float(architecture_counts(network).macs) for network in at_random]])
    entry: dict[str, Any] = {"searches": list(supernets)}
    for measure, sign in (("loss", -1), ("top1", 1)):
        observed = (sign * _values(at_random, trainings, measure).mean(axis=1)).tolist()
        entry[measure] = {
            name: {
                "tau": _plain(mean_tau(rows, observed)),
                "tau_of_each": [
                    None if (tau := tau_with_interval(row, observed)) is None else list(tau) for row in rows
                ],
                "pairs_ordered_rightly": _plain(share_ordered(rows, observed)),
            }
            for name, rows in predicted.items()
            if len(rows)
        }
    return entry


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()


# ---- for people ------------------------------------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> str:
    """The groups as a Markdown table, and the supernet's worth below."""
    head = ("networks", "n", "measured ms", "test loss", "less random", "by Welch", "top-1 %", "less random", "beats")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, group in found["groups"].items():
        cells = [name, str(group["networks"]), "" if group["measured_ms"] is None else f"{group['measured_ms']:.2f}"]
        cells += [_words(group["loss"], 3), _words(group.get("loss_less_random"), 3, "+")]
        cells += [_words(group.get("loss_less_random_welch"), 3, "+"), _words(group["top1"], 2)]
        cells += [_words(group.get("top1_less_random"), 2, "+")]
        share = group.get("loss_share_of_random_beaten")
        cells += ["" if share is None else f"{share:.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for measure, words in (("loss", "test loss"), ("top1", "top-1")):
        entry = found["spread"][measure]
        lines.append(
            f"{words}: standard deviation between random networks {entry['between']:.4g}, within one (seeds) "
            f"{entry['within']:.4g}, ratio {_words(entry['ratio'], 2)}"
        )
    for name, entry in found["supernet"]["loss"].items():
        lines.append(
            f"{name} against test loss: tau {_words(entry['tau'], 2, '+')}, pairs ordered rightly "
            f"{_words(entry['pairs_ordered_rightly'], 2)}"
        )
    return "\n".join(lines)


def _words(interval: Mapping[str, float] | None, digits: int, sign: str = "") -> str:
    if interval is None:
        return ""
    value, low, high = (f"{interval[name]:{sign}.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
