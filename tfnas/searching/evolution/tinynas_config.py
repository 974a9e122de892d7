"""TinyNAS configurations as data: assignments of literals, `dict(...)` and names assigned before. Nothing is run.

    image_size = 224
    budgets = [dict(type="flops", budget=41e8), dict(type="layers", budget=49)]

Of the file, what says where and how its program runs (folders, logging, GPUs) means nothing here. Anything else that is
not understood is refused.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any, TypeGuard

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.tinynas import read_document
from tfnas.spaces.zen.zen_family import StructureArchitecture

_LARGEST_FILE = 1_000_000
_IGNORED = {"work_dir", "log_level", "log_freq", "enable_gpu"}
_SECTIONS = ("image_size", "frames", "model", "budgets", "score", "latency", "space", "search")
_SPACES = {
    "k1kxk1": "tinynas-k1kxk1",
    "k1kx": "tinynas-k1kx",
    "kxkx": "tinynas-kxkx",
    "k1dwk1": "tinynas-k1dwk1",
    "k1dwsek1": "tinynas-k1dwsek1",
    "quant_k1dwk1": "tinynas-quant-k1dwk1",
    "3d_k1dwk1": "tinynas-3d-k1dwk1",
}
_BUDGETS = {
    "layers": "max_layers",
    "model_size": "max_params",
    "flops": "max_macs",
    "max_feature": "max_feature",
    "efficient_score": "max_effectiveness",
}
_SCORES = {"madnas": "multiscale_entropy", "deepmad": "entropy", "stentr": "spatiotemporal_entropy", "random": "random"}
_KINDS = {int: "a whole number", dict: "a dict", list: "a list"}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_LARGEST_NUMBER = 1e30
_RULES = {
    "block_num": "changes",
    "maximum_channel": "max_channels",
    "channel_range_list": "block_channels",
    "kernel_size_list": "kernels",
}
_NEUTRAL = {
    "ratio": 1,
    "alpha1": 1,
    "alpha2": 1,
    "init_std": 4,
    "init_std_act": 5,
    "minor_mutation": False,
    "num_network": 1,
    "sync_size_ratio": 1,
}
"""Settings of its score and its search that this package has at these values only."""


def read_tinynas_config(path: Path) -> tuple[dict[str, Any], float | None, str | None]:
    """Settings of an evolutionary search by name, its budget of milliseconds per image, and on what that was measured.

    Raises InputError naming the file, and what in it is wrong or unknown.
    """
    try:
        data = path.read_bytes()
        if len(data) > _LARGEST_FILE:
            raise InputError(f"it has {len(data)} bytes, more than any configuration")
        return _Config(_assignments(data.decode("utf-8-sig"))).settings()
    except OSError as error:
        raise InputError(f"cannot read the preset {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"preset {path}: not UTF-8 at byte {error.start}") from error
    except InputError as error:
        raise InputError(f"preset {path}: {error}") from error


# ---- literals -------------------------------------------------------------------------------------------------------


def _assignments(text: str) -> dict[str, Any]:
    """What the file assigns, by name, but for what only other assignments use."""
    try:
        tree = ast.parse(text)
        names: dict[str, Any] = {}
        for statement in tree.body:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else None
            if isinstance(target, ast.Name) and isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                names[target.id] = _value(statement.value, names)
            elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                raise InputError(f"line {statement.lineno}: expected `name = value`; a preset is read, not run")
    except SyntaxError as error:
        raise InputError(f"line {error.lineno}: {error.msg}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise InputError(f"it cannot be read as a configuration: {error}") from error
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return {name: value for name, value in names.items() if name in _SECTIONS or name not in used}


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """A literal, a name assigned before, `dict(name=value)`, or a sum or product of numbers."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(entry, names) for entry in node.elts]
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key, names) for key in node.keys if key is not None]
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            raise InputError(f"line {node.lineno}: the keys of a dict must be different texts")
        return dict(zip(keys, (_value(value, names) for value in node.values), strict=True))
    if _is_dict_of_words(node):
        return {str(word.arg): _value(word.value, names) for word in node.keywords}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand, names)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _number(node.left, names), _number(node.right, names)
        if isinstance(node.op, ast.Div) and not right:
            raise InputError(f"line {node.lineno}: division by zero")
        return _OPERATORS[type(node.op)](left, right)
    raise InputError(
        f"line {node.lineno}: expected a literal, dict(...) or a name assigned before, got {short(ast.unparse(node))}; "
        "a preset is read, not run"
    )


def _is_dict_of_words(node: ast.expr) -> TypeGuard[ast.Call]:
    """Whether it is `dict(name=value)`, without others' entries (`**`)."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict"):
        return False
    return not node.args and all(word.arg is not None for word in node.keywords)


def _number(node: ast.expr, names: Mapping[str, Any]) -> float | int:
    value = _value(node, names)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST_NUMBER:
        raise InputError(f"line {node.lineno}: expected a number, got {short(value)}")
    return value


# ---- what it means --------------------------------------------------------------------------------------------------


class _Config:
    """The sections of a configuration. Whatever is not known is refused."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.fields: dict[str, Any] = {}

    def settings(self) -> tuple[dict[str, Any], float | None, str | None]:
        """See `read_tinynas_config`."""
        unknown = [name for name in self.values if name not in {*_IGNORED, *_SECTIONS}]
        if unknown:
            raise InputError(f"unknown setting {unknown[0]}; known are {', '.join(_SECTIONS)}")
        size = _whole(self._section("image_size", int), "image_size")
        frames = _whole(self.values.get("frames", 1), "frames")
        self._space()
        structure = Structure(read_document(self._section("model", dict).get("structure_info")), "tinynas")
        start = StructureArchitecture(structure, size, frames=frames)
        self.fields |= {"image_size": size, "init": start.to_text()}
        self._score(self._section("score", dict))
        search = self._section("search", dict)
        _refuse_unknown("search", search, {"popu_size", "num_random_nets", "minor_iter"})
        for name, field in (("popu_size", "population"), ("num_random_nets", "iterations")):
            if name in search:
                self.fields[field] = _whole(search[name], f"search.{name}")
        seconds = self._budgets(self._section("budgets", list))
        latency = self.values.get("latency")
        device = None
        if isinstance(latency, dict):
            given = [latency.get("device_name"), latency.get("data_type")]
            device = f"{', '.join(str(name) for name in given if name)}, batch {latency.get('batch_size', 32)}"
        return self.fields, None if seconds is None else 1000 * seconds, device

    def _section(self, name: str, kind: type) -> Any:
        if not isinstance(self.values.get(name), kind):
            raise InputError(f"{name} must be given, as {_KINDS[kind]}, got {short(self.values.get(name))}")
        return self.values[name]

    def _space(self) -> None:
        section = self._section("space", dict)
        kind = str(section.get("type")).removeprefix("space_")
        if kind not in _SPACES:
            raise InputError(f"unknown space {short(section.get('type'))}; known are {', '.join(_SPACES)}")
        self.fields["space"] = _SPACES[kind]
        rules = {_RULES[name]: section[name] for name in _RULES if name in section}
        if section.get("exclude_stem"):
            rules["change_stem"] = False
        if rules:
            self.fields["space_rules"] = json.dumps(rules)
        _refuse_unknown("space", section, {"type", "image_size", "exclude_stem", "budget_layers", *_RULES})

    def _budgets(self, budgets: list[Any]) -> float | None:
        """Sets the budgets; returns the seconds per image, if there is such a one."""
        seconds = None
        for entry in budgets:
            kind = entry.get("type") if isinstance(entry, dict) else None
            value = entry.get("budget") if isinstance(entry, dict) else None
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LARGEST_NUMBER:
                raise InputError(f"budget {short(kind)} must have a budget above 0, got {short(value)}")
            if kind == "latency":
                seconds = float(value)
            elif kind in _BUDGETS:
                self.fields[_BUDGETS[kind]] = int(value) if kind == "layers" else float(value)
            else:
                raise InputError(f"unknown budget {short(kind)}; known are {', '.join([*_BUDGETS, 'latency'])}")
        return seconds

    def _score(self, section: Mapping[str, Any]) -> None:
        kind = section.get("type")
        if kind not in _SCORES:
            raise InputError(f"unknown score {short(kind)}; known are {', '.join(_SCORES)}")
        quantized = self.fields["space"] == "tinynas-quant-k1dwk1"
        self.fields["score"] = "quantized_entropy" if kind == "madnas" and quantized else _SCORES[kind]
        if quantized:
            self.fields["reference_counts"] = True  # its budgets count bytes, and multiplications of 8 bits
        _refuse_unknown("score", section, {"type", "multi_block_ratio", "depth_penalty_ratio", "frames", "image_size"})
        weights = section.get("multi_block_ratio")
        if weights is not None:
            if not isinstance(weights, list) or not all(isinstance(weight, int | float) for weight in weights):
                raise InputError(f"score.multi_block_ratio must be a list of numbers, got {short(weights)}")
            self.fields["stage_weights"] = ",".join(f"{weight:g}" for weight in weights)
        if kind == "deepmad":
            penalty = section.get("depth_penalty_ratio", 0)
            if isinstance(penalty, bool) or not isinstance(penalty, int | float) or penalty < 0:
                raise InputError(f"score.depth_penalty_ratio must be a number of 0 or more, got {short(penalty)}")
            self.fields["depth_penalty"] = float(penalty)


def _refuse_unknown(where: str, section: Mapping[str, Any], known: Set[str]) -> None:
    for name, value in section.items():
        if name not in known and (name not in _NEUTRAL or value != _NEUTRAL[name]):
            neutral = f": only {_NEUTRAL[name]} can be searched with" if name in _NEUTRAL else ""
            raise InputError(f"{where}.{name} = {short(value)} is not understood{neutral}")


def _whole(value: Any, name: str) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 1 <= value < _LARGEST_NUMBER or value != int(value):
        raise InputError(f"{name} must be a whole number of 1 or more, got {short(value)}")
    return int(value)
