"""Adafactor: its options in the run config, the same run at any layout, and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.corpus import Corpus
from support.distributed import run_distributed
from support.pegasus_corpus import pegasus_run_settings
from support.runs import changed, errors_of, last_tensors, losses, metrics, train_all

from bigbird_ds.errors import ConfigError
from bigbird_ds.training.config.file import check_run_config
from bigbird_ds.training.config.run_config import OptimizerConfig
from bigbird_ds.training.deepspeed.config import deepspeed_config
from bigbird_ds.training.optimizer import build_optimizer
from bigbird_ds.training.optimizers import OPTIMIZERS
from bigbird_ds.training.planning.plan import describe_plan

STAGE = "deepspeed.zero_optimization.stage"
STEPS, HALF = 4, 2


@pytest.fixture(scope="module")
def settings(pegasus_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return changed(
        pegasus_run_settings(pegasus_corpus, tmp_path_factory.mktemp("runs") / "whole"),
        optimizer={"name": "adafactor", "lr": 3e-2, "weight_decay": 0.1},
        **{STAGE: 0, "data.validation": None},
        **{"schedule.total_steps": STEPS, "train.steps": STEPS},
    )


@pytest.fixture(scope="module")
def runs(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The config of every run below, all of them trained."""
    folder = Path(settings["output"]).parent
    bf16 = {"deepspeed.bf16.enabled": True}

    def run(name: str, steps: int = STEPS, **changes: Any) -> dict[str, Any]:
        return changed(settings, output=str(folder / name), **{"train.steps": steps}, **changes)

    def resumed(name: str) -> dict[str, str]:
        return {"resume": str(folder / name / "checkpoints" / f"step-{HALF}")}

    first = {
        "whole": run("whole"),
        "small": run("small", **{"batch.micro": 1}),
        "half": run("half", HALF),
        "continued": run("continued", **resumed("half")),
        "bf16": run("bf16", **bf16),
        "bf16 half": run("bf16 half", HALF, **bf16),
        "bf16 continued": run("bf16 continued", **bf16, **resumed("bf16 half")),
    }
    second = {"2 ranks": run("2 ranks", HALF), "1 to 2": run("1 to 2", **resumed("half"))}
    third = {"2 to 1": run("2 to 1", **resumed("2 ranks"))}
    run_distributed(train_all, 1, list(first.values()))
    run_distributed(train_all, 2, list(second.values()))
    run_distributed(train_all, 1, list(third.values()))
    return first | second | third


@pytest.mark.launch
def test_losses_are_the_same_for_any_ranks_and_micro_batch_and_after_a_resume(
    runs: dict[str, dict[str, Any]],
) -> None:
    expected, weights = losses(metrics(runs["whole"])), last_tensors(runs["whole"])
    assert len(set(expected)) == STEPS
    assert losses(metrics(runs["small"])) == pytest.approx(expected, rel=1e-4)
    assert losses(metrics(runs["2 ranks"])) == pytest.approx(expected[:HALF], rel=1e-4)
    for name in ("1 to 2", "2 to 1"):
        assert losses(metrics(runs[name])) == pytest.approx(expected[HALF:], rel=1e-4)
        found = last_tensors(runs[name])
        assert found.keys() == weights.keys()
        for key, tensor in weights.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.launch
@pytest.mark.parametrize("names", [("whole", "continued"), ("bf16", "bf16 continued")])
def test_a_resume_at_the_same_layout_is_exact(
    runs: dict[str, dict[str, Any]], names: tuple[str, str]
) -> None:
    whole, continued = (runs[name] for name in names)
    assert losses(metrics(continued)) == losses(metrics(whole))[HALF:]
    expected, found = last_tensors(whole), last_tensors(continued)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.launch
def test_bf16_stays_near_fp32(runs: dict[str, dict[str, Any]]) -> None:
    # bf16 keeps 8 bits: losses agree to about 2 ** -8.
    expected = losses(metrics(runs["whole"]))
    assert losses(metrics(runs["bf16"])) == pytest.approx(expected, rel=4e-3)


@pytest.mark.launch
def test_the_state_is_factored_and_stored_by_parameter_name(
    runs: dict[str, dict[str, Any]],
) -> None:
    folder = Path(runs["whole"]["output"]) / "checkpoints" / f"step-{STEPS}"
    with safe_open(folder / "optimizer.safetensors", framework="pt") as stream:
        shapes = {key: tuple(stream.get_slice(key).get_shape()) for key in stream.keys()}  # noqa: SIM118
    parameters = load_file(folder / "model.safetensors")
    del parameters["final_logits_bias"]  # a buffer without state
    expected = {
        f"{kind}/{name}": shape
        for name, tensor in parameters.items()
        for kind, shape in OPTIMIZERS["adafactor"].state_shapes(tensor.shape).items()
    }
    assert shapes == expected
    assert shapes["row_var/model.shared.weight"] == (500, 1)
    assert shapes["col_var/model.shared.weight"] == (1, 32)


@pytest.mark.launch
def test_a_checkpoint_of_the_other_optimizer_is_refused(runs: dict[str, dict[str, Any]]) -> None:
    adamw = changed(runs["whole"], optimizer={"name": "adamw"})
    (message,) = run_distributed(errors_of, 1, [adamw])[0]
    assert message is not None and "the state of a different optimizer" in message


def test_biases_and_norms_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    for name in ("adamw", "adafactor"):
        optimizer = build_optimizer(model, OptimizerConfig(name=name, weight_decay=0.3))
        decays = {
            parameter: group["weight_decay"]
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        assert decays == {p: 0.3 if p.ndim == 2 else 0.0 for p in model.parameters()}


def test_small_gradients_move_the_weights_as_large_ones_do() -> None:
    """The step does not depend on the gradients' size; torch's default epsilon breaks that."""
    moved = []
    for size in (1.0, 1e-6):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(6, 4))
        before = weight.detach().clone()
        optimizer = build_optimizer(
            torch.nn.ParameterList([weight]), OptimizerConfig(name="adafactor", weight_decay=0.0)
        )
        optimizer.param_groups[0]["lr"] = 1e-2
        gradient = torch.randn(6, 4)
        for factor in (1.0, 0.2):
            weight.grad = gradient * factor * size
            optimizer.step()
        moved.append(weight.detach() - before)
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("option", [{"betas": (0.8, 0.9)}, {"eps": 1e-8}], ids=str)
def test_options_of_adamw_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="has no effect on adafactor"):
        OptimizerConfig(name="adafactor", **option)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_is_refused_with_the_reason(settings: dict[str, Any], stage: int) -> None:
    config = check_run_config(changed(settings, **{STAGE: stage}), "test")
    with pytest.raises(ConfigError, match="whole matrices") as caught:
        deepspeed_config(config, 1)
    for part in (f"stage={stage}", "needed: stage 0", "change: deepspeed.zero_optimization.stage"):
        assert part in str(caught.value)


def test_the_plan_counts_less_memory_for_its_state(settings: dict[str, Any]) -> None:
    def planned(run: dict[str, Any]) -> float:
        text = describe_plan(check_run_config(run, "test"))
        return float(text.split("  optimizer")[1].split()[0])

    large = changed(settings, **{"model.d_model": 512, "model.encoder_ffn_dim": 2048})
    adamw = changed(large, optimizer={"name": "adamw"})
    assert planned(large) < planned(adamw) / 20
