"""The benchmarks run and write complete results; no figure is checked here."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

from bigbird_ds.attention.styles import STYLES
from bigbird_ds.objectives.principal_sentences import STRATEGIES
from bigbird_ds.training.config.file import load_run_config

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def run_benchmark(name: str, folder: Path, *options: str) -> dict:
    result = folder / "result.json"
    command = [sys.executable, str(BENCHMARKS / name), *options, "--json", str(result)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return json.loads(result.read_text())


@pytest.mark.parametrize("model", ["tiny", "pegasus-tiny"])
def test_training_step_compares_contenders_that_agree(model, tmp_path):
    content = run_benchmark(
        "training_step.py",
        tmp_path,
        *("--model", model, "--lengths", "240", "--repeats", "1", "--threads", "1"),
    )
    results = {result["name"]: result for result in content["results"]}
    assert set(results) == {"ours", "ours dense", "transformers"}
    assert abs(results["ours"]["loss"] - results["transformers"]["loss"]) < 1e-3
    assert results["transformers"]["ratio"] == 1.0
    for result in results.values():
        assert round(result["tokens_per_second"] * result["seconds"]) == 240
        assert result["peak_gib"] > 0.05  # a process that has loaded torch
    assert content["environment"]["torch"]


def test_fine_tuning_compares_contenders_that_agree(tmp_path):
    content = run_benchmark(
        "fine_tuning.py",
        tmp_path,
        *("--size", "tiny", "--lengths", "256", "--repeats", "1", "--threads", "1", "--no-memory"),
    )
    for model in ("bigbird", "pegasus"):
        results = [r for r in content["results"] if r["case"]["model"] == model]
        assert len(results) == 7
        assert results[0]["ratio"] == 1.0
        exact = [r["loss"] for r in results if r["case"]["contender"].endswith("fp32")]
        assert len(exact) == 2 and abs(exact[0] - exact[1]) < 1e-5


def test_attention_times_each_backend(tmp_path):
    content = run_benchmark(
        "attention.py",
        tmp_path,
        *("--lengths", "96", "--block-size", "16", "--heads", "2", "--head-size", "8"),
        *("--repeats", "1", "--threads", "1"),
    )
    assert [result["name"] for result in content["results"]] == ["gathered", "reference", "dense"]


def test_gap_sentences_times_every_strategy(pegasus_corpus, tmp_path):
    content = run_benchmark(
        "gap_sentences.py",
        tmp_path,
        *(str(pegasus_corpus.documents), str(pegasus_corpus.tokenizer), "--seconds", "0.01"),
    )
    results = content["results"]
    assert {result["strategy"] for result in results} == set(STRATEGIES)
    assert len(results) == len(STRATEGIES) * 4  # two lengths, packed and long
    assert all(result["megabytes_per_second"] > 0 for result in results)


def test_sharding_takes_turns_with_datasets(corpus, tmp_path):
    content = run_benchmark(
        "sharding.py",
        tmp_path,
        *(str(corpus.documents), str(corpus.tokenizer), "--megabytes", "0.05"),
        *("--document-megabytes", "0.3", "--workers", "1", "--repeats", "1"),
    )
    ours, theirs, memory = content["results"]
    assert (ours["name"], theirs["name"]) == ("bigbird-ds shard", "datasets.map")
    assert theirs["ratio"] == 1 and theirs["megabytes_per_second"] > 0
    per_core = [each["megabytes_per_cpu_second"] for each in (ours, theirs)]
    assert per_core[0] / per_core[1] == pytest.approx(ours["ratio"])
    assert memory["workers"] == 4 and memory["peak_mb"] > 50  # Python and NumPy


def test_fine_tuning_tells_the_memory_of_a_process_of_its_own(tmp_path):
    content = run_benchmark(
        "fine_tuning.py",
        tmp_path,
        *("--size", "tiny", "--lengths", "256", "--repeats", "1", "--threads", "1"),
        *("--models", "bigbird", "--contenders", "accelerated, bf16 weights"),
    )
    (result,) = content["results"]
    assert result["peak_gib"] > 0.05  # a process that has loaded torch


def test_profile_names_the_operators_that_take_longest(tmp_path):
    options = ("--model", "tiny", "--length", "240", "--threads", "1", "--rows", "5")
    results = run_benchmark("profile_step.py", tmp_path, *options)["results"]
    shares = [result["share"] for result in results]
    assert len(shares) == 5 and shares == sorted(shares, reverse=True) and shares[0] < 1


def test_patterns_of_every_style_are_measured(tmp_path):
    content = run_benchmark("pattern.py", tmp_path, "--lengths", "1024")
    assert {result["style"] for result in content["results"]} == set(STYLES)
    assert all(result["peak_mb"] >= result["kept_mb"] > 0 for result in content["results"])


def test_memory_of_a_checkpointed_step_is_counted(tmp_path):
    options = ("--models", "base", "--lengths", "512")
    (result,) = run_benchmark("activation_memory.py", tmp_path, *options)["results"]
    assert result["peak_bytes"] > result["kept_bytes"] > 12 * 512 * 768 * 2  # a layer's input, bf16


@pytest.mark.launch
def test_traffic_of_a_decoder_layer_is_what_the_formula_says(tmp_path):
    options = ("--decoder", "--ranks", "2", "--lengths", "512", "--target-length", "16")
    (row,) = run_benchmark("sequence_parallel.py", tmp_path, *options)["results"]
    for direction in ("forward", "backward"):
        assert row[direction] == row[f"{direction}_formula"] > 0


def test_loader_counts_tokens(tmp_path):
    options = ("--lengths", "1024", "--workers", "0", "--seconds", "0.2")
    content = run_benchmark("loader.py", tmp_path, *options)
    (result,) = content["results"]
    assert result["tokens_per_second"] > 0
    assert content["environment"]["numpy"]


def test_memory_of_the_index_is_measured(tmp_path):
    content = run_benchmark("index_memory.py", tmp_path, "--sentences", "50000")
    (result,) = content["results"]
    assert result["tokens"] == 16 * result["sentences"] > 600_000
    assert 0 < result["before_mb"] <= result["peak_mb"]


def test_recall_is_tested_by_distance_and_by_what_the_pattern_connects(tmp_path):
    options = ("--styles", "none", "relay", "--length", "256", "--steps", "2", "--documents", "1")
    picture = tmp_path / "recall.png"
    content = run_benchmark(
        "recall.py", tmp_path, *options, "--test-documents", "2", "--draw", str(picture)
    )
    assert [result["style"] for result in content["results"]] == ["none", "relay"]
    for result in content["results"]:
        assert len(result["losses"]) == 0 and result["steps"] == 2
        assert list(result["by_distance"]) == ["8", "16", "32", "64", "128"]
        shares = [result["by_distance"]["128"][kind] for kind in ("direct", "not connected")]
        assert shares == [0, 1] if result["style"] == "none" else shares[0] > 0
    assert picture.stat().st_size > 1000


def test_recall_of_all_styles_starts_from_one_model_of_short_documents(tmp_path):
    options = ("--styles", "none", "uniform", "--length", "256", "--steps", "0", "--pairs", "1")
    options += ("--short-length", "64", "--short-steps", "2", "--short-documents", "1")
    content = run_benchmark("recall.py", tmp_path, *options, "--test-documents", "1")
    short, none, uniform = content["results"]
    assert (short["style"], short["steps"], none["steps"]) == ("short documents", 2, 0)
    assert list(short["by_distance"]) == ["4", "8", "16", "32"]
    assert list(none["by_distance"]) == list(uniform["by_distance"])
    assert content["options"]["keys"] == 32


def test_listops_compares_styles_on_the_same_expressions(tmp_path):
    options = ("--length", "160", "--shortest", "32", "--steps", "10", "--batch", "2")
    content = run_benchmark("listops.py", tmp_path, *options, "--test-expressions", "20")
    none, uniform = content["results"]
    assert (none["style"], uniform["style"]) == ("none", "uniform")
    assert none["majority"] == uniform["majority"] >= 0.1 and none["expressions"] == 20
    assert none["majority"] <= none["operator_majority"] < 1
    assert len(none["losses"]) == 1 and none["losses"] != uniform["losses"]


def test_expressions_of_listops_have_the_value_of_their_tokens(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import listops

    def value_of(tokens):
        token = tokens.pop(0)
        if token >= listops.FIRST_DIGIT:
            return token - listops.FIRST_DIGIT
        values = []
        while tokens[0] != listops.CLOSE:
            values.append(value_of(tokens))
        tokens.pop(0)
        order = sorted(values)
        middle = (order[(len(order) - 1) // 2] + order[len(order) // 2]) // 2
        operator = token - listops.FIRST_OPERATOR
        return (order[-1], order[0], middle, sum(values) % 10)[operator]

    ids, mask, values = listops.draw_batch(Random(0), 20, 32, 160)
    for row, used, value in zip(ids.tolist(), mask.sum(1).tolist(), values.tolist(), strict=True):
        tokens = row[1:used]
        assert 32 <= used <= 160 and value_of(tokens) == value and not tokens


def test_stages_of_the_context_experiment_are_valid_configs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import context_lowers_loss

    started = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: started.append(command[-1]))
    arguments = context_lowers_loss.make_parser().parse_args(["--work", str(tmp_path)])
    last = context_lowers_loss.train(arguments)
    short, long = map(load_run_config, started)
    assert (short.data.sequence_length, long.data.sequence_length) == (64, 1024)
    assert (short.continue_from, long.continue_from) == (None, short.output)
    assert long.output == str(last) and long.schedule == short.schedule
    assert (
        long.train.steps == long.schedule.total_steps == sum(steps for _, steps in arguments.stages)
    )


@pytest.fixture(scope="module")
def genomes(tmp_path_factory):
    """Two strains of 40,000 bases: b is a with a base in 100 changed, its second half inverted."""
    folder = tmp_path_factory.mktemp("genomes")
    generator = np.random.default_rng(0)
    first = generator.integers(4, size=40_000).astype(np.uint8)
    changed = np.where(generator.random(len(first)) < 0.01, 3 - first, first)
    second = np.concatenate([changed[:20_000], 3 - changed[:19_999:-1]])
    (folder / "x" / "references").mkdir(parents=True)
    for name, bases in (("a", first), ("b", second)):
        text = np.frombuffer(b"ACGT", np.uint8)[bases].tobytes()
        with gzip.open(folder / "x" / "references" / f"{name}.fasta.gz", "wb") as file:
            file.write(b">" + name.encode() + b"\n" + text + b"\n")
    return folder


def test_windows_of_genomes_pair_homologous_pieces_on_either_strand(genomes, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from genome_windows import draw_window, read_strains, words

    strains = read_strains(genomes)
    tested = strains[0].bases[slice(*strains[0].test_range)]
    for is_test in (False, True):
        generator = np.random.default_rng(1)
        for _ in range(20):
            related, unrelated = draw_window(strains, generator, 6, 96, is_test)
            both = related.is_homologous
            same = [(window.other == window.masked)[both].mean() for window in (related, unrelated)]
            assert same[0] > 0.95 and same[1] < 0.5 and both.mean() >= 0.75
            shared = np.isin(words(related.masked.ravel()), words(tested)).mean()
            assert shared > 0.7 if is_test else shared < 0.05


def test_genome_context_tests_with_the_homologue_and_without(genomes, tmp_path):
    options = ("--genomes", str(genomes), "--contenders", "uniform", "none", "--steps", "1")
    options += ("--short-steps", "1")
    size = ("--blocks", "10", "--short-blocks", "9", "--block", "16", "--test-windows", "2")
    picture = tmp_path / "bits.png"
    content = run_benchmark("genome_context.py", tmp_path, *options, *size, "--draw", str(picture))
    uniform, none = content["results"]
    assert (uniform["contender"], none["contender"]) == ("uniform", "none")
    for row in (uniform, none):
        related, unrelated = row["homologous"], row["unrelated"]
        assert related["tokens"] == unrelated["tokens"] > 0 and related["copied"] > 0.8
        assert related["bits"] != unrelated["bits"]  # the global blocks tell a little
    assert uniform["homologous"]["by_kind"]["direct"]["tokens"] > 0
    assert none["homologous"]["by_kind"]["direct"]["tokens"] == 0
    assert picture.stat().st_size > 1000
