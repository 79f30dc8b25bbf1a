"""The flight recorder of NCCL is on in CUDA runs, and a hang keeps what it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._C import _distributed_c10d

from bigbird_ds.training.ranks import distributed, flight_recorder, watchdog
from bigbird_ds.training.ranks.distributed import Ranks
from bigbird_ds.training.ranks.flight_recorder import record_collectives, write_collectives
from bigbird_ds.training.ranks.progress import Progress
from bigbird_ds.training.ranks.rendezvous import StoppedWhileWaiting

NAMES = {*flight_recorder._ENTRIES, *flight_recorder._FILE, *flight_recorder._AT_TIMEOUT}


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The process's variables, without those of the recorder."""
    own = {name: value for name, value in distributed.os.environ.items() if name not in NAMES}
    monkeypatch.setattr("os.environ", own)
    return own


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_a_cuda_run_records_its_collectives_from_before_the_ranks_meet(
    kind: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def meet(*_: object) -> None:
        raise StoppedWhileWaiting

    environ.update(RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    monkeypatch.setattr(distributed, "_pick_device", lambda _: torch.device(kind))
    monkeypatch.setattr(distributed, "meet", meet)
    with pytest.raises(StoppedWhileWaiting):
        distributed.start(None, 600.0, lambda: False, tmp_path)
    found = {name: environ[name] for name in NAMES if name in environ}
    wanted = {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_FR_DUMP_TEMP_FILE": f"{tmp_path}/nccl_trace_rank_",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    }
    assert found == (wanted if kind == "cuda" else {})


def test_the_users_variables_win_by_their_old_names_too(
    environ: dict[str, str], tmp_path: Path
) -> None:
    own = {
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "0",
        "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "mine",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
    }
    environ.update(own)
    record_collectives(tmp_path)
    assert {name: environ[name] for name in NAMES if name in environ} == own


def test_a_hang_writes_what_the_recorder_has_unless_it_is_off(
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_distributed_c10d, "_dump_nccl_trace", lambda: b"trace", raising=False)
    assert write_collectives(1) is None  # a CPU run
    record_collectives(tmp_path / "logs")
    ended: list[int] = []
    monkeypatch.setattr(watchdog, "end_process", ended.append)
    ranks = Ranks(0, 1, 0, torch.device("cpu"), None, progress=Progress())  # type: ignore[arg-type]
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [value])
    reports = watchdog._Reports(ranks, 1.0)
    watchdog._Watchdog(ranks, 0.1, reports)._end(1.0)
    file = tmp_path / "logs" / "nccl_trace_rank_0"
    assert file.read_bytes() == b"trace" and ended == [76]
    assert f"the last collectives of rank 0: {file}" in capfd.readouterr().err
    environ["TORCH_FR_BUFFER_SIZE"] = "0"
    assert write_collectives(1) is None
