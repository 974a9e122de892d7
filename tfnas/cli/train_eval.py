"""`python train_eval_amp.py --model_path RUN_DIR`: train a derived network (also `tfnas train`).

`train_eval.py` is the same in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import running, say_loading
from tfnas.core.errors import InputError
from tfnas.training.train_config import TrainConfig

FLOAT32_PROGRAM = "train_eval.py"  # a resumed run's own --opt_level is checked where it is read

_EXAMPLES = """\
  {command} --model_path runs/search-20250131-120000
      the network that a search found, on that search's data
  {command} --inherit runs/search-20250131-120000
      the same, starting from the weights that the search has learned
  {command} --config_path model.config --train_root DIR \\
    --val_root DIR --train_list train.txt --val_list val.txt
      the authors' retraining on ImageNet
  torchrun --nproc_per_node=2 {program} --model_path RUN
      two processes on this machine
  {command} --snapshot runs/train-20250131-120000
      resume an interrupted run"""

_GROUPS = (
    FlagGroup("what to train", ("model_path", "config_path", "arch", "inherit")),
    FlagGroup(
        "on what",
        (
            *("data", "train_root", "val_root", "train_list", "val_list", "test_ratio"),
            *("image_size", "num_classes", "class_names"),
        ),
        "Default: the data of the search named above, else the digits.",
    ),
    FlagGroup("the run", ("save", "note", "run_dir", "snapshot", "seed", "save_minutes", "print_freq")),
    FlagGroup(
        "the machine",
        (
            *("device", "threads", "workers", "deterministic", "opt_level", "amp_backend"),
            *("loss_scale", "keep_batchnorm_fp32", "sync_bn", "channels_last", "compile", "accumulate"),
            *("local_rank", "rank_timeout"),
        ),
    ),
    FlagGroup(
        "recipe",
        (
            *("epochs", "batch_size", "lr", "momentum", "weight_decay", "grad_clip", "warmup_epochs"),
            *("label_smooth", "dropout_rate", "drop_connect_rate"),
        ),
        "Defaults depend on the kind of data.",
    ),
    FlagGroup(
        "further options",
        (
            *("ema_decay", "auto_augment", "random_erasing", "mixup", "cutmix"),
            *("teacher", "teacher_weights", "distill_weight", "distill_temperature"),
        ),
        "Off unless given.",
    ),
)
_DESCRIPTION = "Train the network of an architecture, in one process or several."


def main(argv: Sequence[str] | None = None, prog: str = "train_eval_amp.py") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        program = prog if prog.endswith(".py") else "train_eval_amp.py"
        parser = FlagParser(prog, TrainConfig, _DESCRIPTION, _GROUPS, _EXAMPLES.replace("{program}", program))
        given = parser.given(command.arguments)
        config = TrainConfig(**given)
        if prog == FLOAT32_PROGRAM and config.opt_level != "O0":
            raise InputError(f"{prog} computes in float32: use train_eval_amp.py for --opt_level {config.opt_level}")
        say_loading(prog)
        from tfnas.training.retraining import retrain

        retrain(config, given=given.keys(), program=program)
    return command.status
