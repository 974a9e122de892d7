"""`python train_search.py --target_lat 15`: search an architecture that meets a latency (also `tfnas search`)."""

from __future__ import annotations

from collections.abc import Sequence

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import running, say_loading
from tfnas.searching.differentiable.search_config import SearchConfig

_EXAMPLES = """\
  {command} --target_lat 15
      search on the embedded handwritten digits, two minutes on a laptop
  {command} --img_root DIR --train_list train.txt \\
    --val_list val.txt --lookup_path latency_gpu.pkl --target_lat 15
      the authors' search on lists of ImageNet-100 images
  {command} --data folder --img_root DIR --space my_space.yaml \\
    --lookup_path my_table.json --target_lat 40
      your own images, one folder per class, in your own space
  {command} --cost macs --target 300e6 --img_root DIR
      a network of 300 million multiply-accumulates; no table needed
  torchrun --nproc_per_node=2 train_search.py --target_lat 15
      two processes on this machine; docs/search.md has several machines
  {command} --resume runs/search-20250131-120000
      resume an interrupted run"""


_GROUPS = (
    FlagGroup("what to meet", ("target_lat", "cost", "lookup_path", "space", "width_multiple")),
    FlagGroup(
        "what to search on",
        (
            *("data", "img_root", "train_list", "val_list", "val_ratio", "test_ratio"),
            *("image_size", "num_classes", "class_names"),
        ),
    ),
    FlagGroup("the run", ("save", "note", "run_dir", "resume", "seed", "save_minutes", "print_freq")),
    FlagGroup(
        "the machine",
        ("device", "threads", "workers", "low_memory", "amp", "deterministic", "local_rank", "rank_timeout"),
    ),
    FlagGroup("the procedure", ("recipe",)),
    FlagGroup(
        "schedule of the weights",
        (
            *("epochs", "warmup_epochs", "batch_size", "w_lr", "w_mom", "w_wd", "grad_clip"),
            *("shared_weights", "sampled_depth"),
        ),
        "Default of each: the search space's own, or that of --recipe.",
    ),
    FlagGroup(
        "schedule of the architecture",
        ("a_lr", "a_wd", "a_beta1", "a_beta2", "T", "T_decay", "lambda_lat", "candidates"),
        "Default of each: the search space's own, or that of --recipe.",
    ),
)
_DESCRIPTION = "Search for the best network whose latency or size is 99.5 to 100 % of a target."


def main(argv: Sequence[str] | None = None, prog: str = "train_search.py") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        parser = FlagParser(prog, SearchConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, aliases={"target": "target_lat"})
        given = parser.given(command.arguments)
        config = SearchConfig(**given)
        say_loading(prog)
        from tfnas.searching.differentiable.differentiable_search import search

        search(config, given=given.keys())
    return command.status
