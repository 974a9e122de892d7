"""The commands: what they hand over, and every kind of bad input as one message and an exit status."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from commands import outcome

from tfnas.cli import parsing_model, rerank
from tfnas.core.errors import InputError
from tfnas.proxies.score import score_names
from tfnas.searching.reranking.rerank_config import ParseAndRerankConfig, RerankConfig

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def handed(monkeypatch):
    """The configurations handed over, in place of re-ranking."""
    configs = []
    monkeypatch.setattr("tfnas.searching.reranking.rerank.rerank", lambda config, console: configs.append(config))
    return configs


def test_both_commands_hand_the_same_over(handed, searched, tmp_path, capsys):
    line = ["--num_candidates", "40", "--calibrate", "16", "--jobs", "3", "--pick", "rank", "--seed", "5"]
    model = ["--model_path", str(searched)]
    assert outcome(capsys, rerank.main, *model, "--rerank", "zen,flops", *line)[0] == 0
    assert outcome(capsys, rerank.main, *model, "--scores", "zen,flops", *line)[0] == 0
    parse = [*model, "--rerank", "zen,flops", *line, "--save_path", str(tmp_path / "model.config")]
    assert outcome(capsys, parsing_model.main, *parse)[0] == 0
    expected = RerankConfig(
        model_path=str(searched),
        scores="zen,flops",
        num_candidates=40,
        calibrate=16,
        jobs=3,
        pick="rank",
        seed=5,
    )
    assert [asdict(config) for config in handed] == [asdict(expected)] * 3
    assert [config.scores_flag for config in handed] == ["--scores", "--scores", "--rerank"]
    assert (tmp_path / "model.config").exists()


def test_parsing_alone_ranks_nothing(handed, searched, tmp_path, capsys):
    arguments = ["--model_path", str(searched), "--save_path", str(tmp_path / "model.config")]
    assert outcome(capsys, parsing_model.main, *arguments) == (0, "")
    assert handed == []


@pytest.mark.parametrize(("width", "fewest", "most"), [(200, 5, 5), (75, 1, 4), (48, 0, 3), (40, 0, 0)])
def test_a_narrow_terminal_gets_fewer_measures_the_combined_ones_first(
    searched, capsys, monkeypatch, width, fewest, most
):
    monkeypatch.setenv("COLUMNS", str(width))
    options = "--scores flops,random,params,entropy --num_candidates 6 --jobs 1 --device cpu"
    assert rerank.main(["--model_path", str(searched), *options.split()]) == 0
    table, _, rest = capsys.readouterr().out.partition("The first 6 of 6 candidates")[2].partition("not shown: ")
    names = table.splitlines()[1].split()
    assert names[:2] == ["rank", "candidate"] and names[-3:] == ["ms", "MACs", "params"]
    shown = [name for name in names[2:-3] if name != "%"]
    assert fewest <= len(shown) <= most
    hidden = " ".join(rest.split()).partition(" (see rerank.csv)")[0].split(", ") if rest else []
    assert sorted(shown + hidden) == ["entropy", "flops", "inherited", "params", "random"]
    assert shown == [name for name in ("flops", "random", "params", "entropy", "inherited") if name in shown]
    if {"random", "inherited"} & set(shown):
        assert not {"flops", "params", "entropy"} & set(hidden)


def test_parsing_shows_what_was_picked(searched, tmp_path, capsys):
    import tfnas

    derived = tfnas.Architecture.load(searched)
    options = "--rerank flops --num_candidates 6 --pick rank --jobs 1 --seed 0 --device cpu"
    saved = tmp_path / "model.config"
    assert parsing_model.main(["--model_path", str(searched), *options.split(), "--save_path", str(saved)]) == 0
    text = capsys.readouterr().out
    assert "The first 6 of 6 candidates" in text and "picked by re-ranking" in text
    picked = tfnas.Architecture.load(searched)
    assert picked != derived
    assert tfnas.Architecture.load(saved, image_size=picked.image_size).to_model_config() == picked.to_model_config()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["--model_path must be given"]),
        (["RUN", "--scores", "zen,zenn"], ["no score 'zenn'", "zen, naswot, synflow", "entropy"]),
        (["RUN", "--scores", "zen,quantized_entropy"], ["quantized_entropy is not for the networks of a search: "]),
        (["RUN", "--scores", "spatiotemporal_entropy"], ["spatiotemporal_entropy is not for the networks of a search"]),
        (["RUN", "--scores", "zen,,zen"], ["--scores must be names separated by commas"]),
        (["RUN", "--scores", "zen,flops,zen"], ["--scores names zen twice"]),
        (["RUN", "--num_candidates", "0"], ["--num_candidates must be 1 or more, got 0"]),
        (["RUN", "--jobs", "0"], ["--jobs must be 1 or more, got 0"]),
        (["RUN", "--calibrate", "3"], ["--calibrate must be 6 or more"]),
        (["RUN", "--calibrate", "16", "--num_candidates", "10"], ["there are only 10 candidates"]),
        (["RUN", "--calibrate", "6", "--calibrate_images", "3"], ["--calibrate_images must be 10"]),
        (["RUN", "--pick", "best"], ["--pick must be one of derived, rank, got 'best'"]),
        (["RUN", "--cluster", "tcp://here:1"], ["--cluster is for --joblib_backend dask or ray"]),
        (["RUN", "--device", "gpu"], ["device must be auto, cpu, cuda or cuda:N, got 'gpu'"]),
        (["RUN", "--lookup_path", "none.json"], ["latency table none.json cannot be read"]),
        (["none"], ["there is no none"]),
        (["RUN", "--seed", "-1"], ["--seed must be 0 to"]),
    ],
)
def test_bad_input_is_one_message(capsys, searched, tmp_path, monkeypatch, arguments, fragments):
    monkeypatch.chdir(tmp_path)
    before = sorted(path for path in searched.rglob("*") if path.name != ".lock")
    if arguments:
        arguments = ["--model_path", str(searched) if arguments[0] == "RUN" else arguments[0], *arguments[1:]]
    status, message = outcome(capsys, rerank.main, *arguments)
    assert status == 2, message
    assert message.startswith("tfnas rerank: ") and message.count("\n") == 1
    for fragment in fragments:
        assert fragment in message
    assert sorted(path for path in searched.rglob("*") if path.name != ".lock") == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_candidates": 5}, "--num_candidates is for re-ranking: add --rerank"),
        ({"pick": "rank"}, "--pick is for re-ranking"),
        ({"rerank": "zen", "num_classes": 3}, "--num_classes and --rerank do not go together"),
        ({"rerank": "zen,"}, "--rerank must be names"),
        ({"rerank": "zen,naswot,zen"}, "--rerank names zen twice"),
    ],
)
def test_flags_of_parsing_that_do_not_go_together(settings, words):
    with pytest.raises(InputError, match=words):
        ParseAndRerankConfig(model_path="run", **settings)


@pytest.mark.parametrize("name", ["zenn", "quantized_entropy"])
def test_parsing_names_the_flag_that_was_typed(capsys, searched, name):
    status, message = outcome(capsys, parsing_model.main, "--model_path", str(searched), "--rerank", name)
    assert status == 2 and name in message and "--rerank: " in message and "--scores" not in message


def test_no_file_may_name_a_cluster(capsys, tmp_path, searched):
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"joblib_backend": "dask", "cluster": "tcp://elsewhere:1"}))
    for command in (rerank.main, parsing_model.main):
        status, message = outcome(capsys, command, "--model_path", str(searched), "--config", str(path))
        assert status == 2 and "cluster must not be in a file" in message


def test_help_fits_a_terminal_and_needs_no_torch(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in (rerank.main, parsing_model.main):
        with pytest.raises(SystemExit, match="0"):
            command(["--help"])
        text = capsys.readouterr().out
        assert "examples:" in text and "--num_candidates" in text
        assert max(map(len, text.splitlines())) <= 80
    check = (
        "import sys, tfnas.cli.rerank as c\ntry: c.main(['--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], cwd=PROJECT, capture_output=True, check=True)


def test_help_names_every_score_that_a_search_can_be_ranked_by(capsys):
    with pytest.raises(SystemExit, match="0"):
        rerank.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in score_names():
        assert (name in text) == (name not in ("quantized_entropy", "spatiotemporal_entropy")), name
