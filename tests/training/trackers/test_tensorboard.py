"""TensorBoard's files, as TensorBoard reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_groups_texts_and_true_steps_without_doubles_after_a_resume(
    stopped_and_resumed: Callable[[str], None], tmp_path: Path
) -> None:
    stopped_and_resumed("tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/loss",
        "throughput/tokens_per_s",
        "eval/loss",
    }
    points = [(point.step, point.value) for point in events.Scalars("train/loss")]
    assert points == [(1, 10.0), (2, 20.0), (3, 30.0), (4, 40.0)]
    config = [event.tensor_proto.string_val[0] for event in events.Tensors("config/text_summary")]
    assert config[0] == b"    optimizer:\n      lr: 0.25"
    assert "eval/samples/text_summary" in events.Tags()["tensors"]
    hyperparameters = events.summary_metadata["_hparams_/session_start_info"]
    assert b"optimizer.lr" in hyperparameters.plugin_data.content
