"""A run directory knows its whole configuration from its checkpoint; what its config.yaml says otherwise is refused."""

import dataclasses

import pytest
import yaml

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import field_types
from tfnas.runs.resumption import changed_settings, saved_settings
from tfnas.runs.run_directory import Checkpoints
from tfnas.runs.run_settings import SEARCH_MAY_CHANGE, SETTINGS, recorded_settings
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.training import train_config as training

COMMANDS = {
    "search": (SearchConfig(), SEARCH_MAY_CHANGE),
    "train": (training.TrainConfig(config_path="model.config"), training.MAY_CHANGE),
}
COMPARED = [
    (kind, name) for kind, (config, may_change) in COMMANDS.items() for name in vars(config) if name not in may_change
]


def write(run_dir, settings):
    (run_dir / "config.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture
def saved(tmp_path):
    """For a kind of run: its settings with a checkpoint that holds them, and how they are read."""

    def of(kind, checkpoint=True):
        config, may_change = COMMANDS[kind]
        write(tmp_path, dataclasses.asdict(config))
        checkpoints = Checkpoints(tmp_path, kind)
        if checkpoint:
            checkpoints.save({SETTINGS: recorded_settings(config)}, 0, 0)
        return vars(config), lambda: saved_settings(tmp_path, checkpoints, type(config), may_change=may_change)

    return of


def another(field_type, value):
    """A value that the setting may have and has not."""
    if field_type.choices:
        return next(choice for choice in field_type.choices if choice != value)
    return {bool: not value, str: f"{value}x"}.get(field_type.type, (value or 0) + 1)


@pytest.mark.parametrize(("kind", "name"), COMPARED)
def test_every_setting_is_compared_but_the_few_that_may_change(saved, tmp_path, kind, name):
    settings, read = saved(kind)
    assert read().current == settings and read().remark is None
    other = another(field_types(type(COMMANDS[kind][0]))[name], settings[name])
    write(tmp_path, {**settings, name: other})
    with pytest.raises(InputError, match=rf"contains {name} {other!r} \({settings[name]!r} when it was saved\)"):
        read()
    write(tmp_path, {key: value for key, value in settings.items() if key != name})
    found = read()
    assert (
        found.current == settings and found.remark == f"warning: config.yaml lacks {name}: as in the newest checkpoint"
    )


def test_what_may_change_is_config_yamls(saved, tmp_path):
    settings, read = saved("search")
    write(tmp_path, {**settings, "w_lr": "1e-3", "workers": 3})
    found = read()
    assert found.current == {**settings, "w_lr": 0.001, "workers": 3}
    assert found.begun_with == settings


def test_ways_out_of_a_failure_that_were_taken_are_said():
    config = dataclasses.replace(COMMANDS["train"][0], lr=0.2, workers=3)
    begun = {**recorded_settings(config), "lr": 0.25, "workers": 1, "grad_clip": 5.0}
    text = changed_settings(config, {SETTINGS: begun}, training.RESCUES)
    assert text == f"grad_clip {config.grad_clip} (5.0 when it was saved), lr 0.2 (0.25 when it was saved)"
    assert changed_settings(config, {SETTINGS: recorded_settings(config)}, training.RESCUES) is None
    assert changed_settings(config, {}, training.RESCUES) is None  # a checkpoint of an earlier version


def test_all_that_differs_is_named_with_the_way_out(saved, tmp_path):
    settings, read = saved("train")
    write(tmp_path, {**settings, "mixup": 0.2, "seed": 3})
    with pytest.raises(InputError, match=r"mixup 0\.2 \(0\.0 when .*, seed 3 \(2 when .* remove it \(rm ") as refused:
        read()
    assert str(tmp_path / "config.yaml") in str(refused.value)
    (tmp_path / "config.yaml").unlink()
    assert read().current == settings and "config.yaml cannot be read; the settings are those" in read().remark


def test_a_setting_that_stands_twice_is_refused_not_taken_from_the_checkpoint(saved, tmp_path):
    _, read = saved("train")
    with (tmp_path / "config.yaml").open("a") as file:
        file.write("seed: 7\n")
    message = r"config\.yaml is not YAML: duplicate key 'seed' in one mapping, at line \d+,"
    with pytest.raises(InputError, match=message):
        read()


def test_before_the_first_checkpoint_nothing_may_be_missing(saved, tmp_path):
    settings, read = saved("train", checkpoint=False)
    assert read().current == settings
    write(tmp_path, {name: value for name, value in settings.items() if name not in ("seed", "mixup")})
    with pytest.raises(InputError, match="lacks seed, mixup, and there is no checkpoint"):
        read()


def test_a_checkpoint_that_holds_something_else_is_refused(saved, tmp_path):
    settings, read = saved("search")
    for wrong, message in (
        ({**settings, "seed": "four"}, r"search-0000-000000\.pt: seed must be a whole number"),
        ({**settings, "sed": 4}, r"search-0000-000000\.pt has the unknown setting sed"),
        (["seed"], "its settings are a list"),
    ):
        Checkpoints(tmp_path, "search").save({SETTINGS: wrong}, 0, 0)
        with pytest.raises(InputError, match=message):
            read()
