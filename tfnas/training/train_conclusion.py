"""The end of a training run: the network as a file, and its numbers."""

from __future__ import annotations

from typing import Any

from tfnas.core.architecture import RUN_FILE
from tfnas.runs.intended import intended_for
from tfnas.runs.model_file import MODEL_FILE, TrainedModel
from tfnas.runs.run_directory import SUMMARY_FILE, RunDirectory
from tfnas.spaces.families import MODEL_CONFIG_FILE, STRUCTURE_FILE, architecture_counts
from tfnas.training.precision import in_single
from tfnas.training.train_session import Session
from tfnas.utils.devices import instruction_sets
from tfnas.utils.text import clock, command_line, short, typed

ONNX_FILE = "model.onnx"
"""What `tfnas export` calls its file where it is told nothing else."""


def conclude(session: Session, run: RunDirectory) -> dict[str, Any]:
    """Write `model.pt` and `summary.json` (the first process does) and show what came out. Returns the summary."""
    summary = summarize(session)
    if not session.setup.processes.is_rank_zero:
        return summary
    setup = session.setup
    TrainedModel(
        architecture=setup.architecture,
        state={name: in_single(value) for name, value in session.learner.judged.state_dict().items()},
        class_names=setup.data.class_names,
        preprocessing=setup.data.preprocessing,
        data=setup.data.name,
    ).save(run.path / MODEL_FILE)
    run.write_json(SUMMARY_FILE, summary)
    show(run, summary)
    return summary


def summarize(session: Session) -> dict[str, Any]:
    """The numbers that a script or a person wants, as `summary.json` holds them."""
    setup = session.setup
    counts = architecture_counts(setup.architecture)
    last = session.history[-1]
    return {
        **{name: last.get(name) for name in ("top1", "top5", "loss", "train_loss", "train_top1")},
        "best_top1": max((entry["top1"] for entry in session.history if "top1" in entry), default=None),
        "inherited": session.inherited or None,
        "params": counts.params,
        "macs": counts.macs,
        "architecture": setup.architecture.to_text(),
        "seed": setup.config.seed,
        "epochs": setup.recipe.epochs,
        "processes": setup.processes.world_size,
        "instruction_sets": list(instruction_sets()),
        "opt_level": setup.config.opt_level,
        "averaged_weights": session.learner.average is not None,
        "seconds": {**session.seconds, "total": sum(session.seconds.values())},
        "data": setup.data.name,
        "num_classes": setup.data.num_classes,
        "class_names": list(setup.data.class_names),
        "image_size": setup.data.preprocessing.image_size,
        **session.recorded,
        "history": session.history,
    }


def show(run: RunDirectory, summary: dict[str, Any]) -> None:
    """Print what was trained, and what to do next."""
    seconds, made = summary["seconds"], intended_for(run.path, summary["architecture"])
    certify = command_line("latency certify", run.path / ONNX_FILE) + (f" {made.flags}" if made else "")
    phases = ", ".join(f"{name} {clock(value)}" for name, value in seconds.items() if name != "total")
    judged = "no images to judge by"
    if summary["top1"] is not None:
        judged = f"top-1 {summary['top1']:.2f} %, top-5 {summary['top5']:.2f} %, loss {summary['loss']:.4f}"
    forms = ", ".join(name for name in (RUN_FILE, MODEL_CONFIG_FILE, STRUCTURE_FILE) if (run.path / name).is_file())
    for line in (
        "",
        f"judged    {judged} (the last epoch's weights, which are kept; the best epoch is not picked by these images)",
        f"network   {short(summary['params'])} parameters, {short(summary['macs'])} MACs",
        f"took      {clock(seconds['total'])}: {phases}",
        f"files     {typed(run.path)}: model.pt, {forms}, summary.json, tensorboard/, log.txt",
        f"next      {command_line('test', '--model_path', run.path)}",
        f"          {command_line('export', '--model_path', run.path)}",
        f"          {certify}",
    ):
        run.say(line)
