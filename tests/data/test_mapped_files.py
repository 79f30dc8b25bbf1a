"""Array files joined in virtual memory equal their concatenation, and are gone with the array."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bigbird_ds.data import mapped_files
from bigbird_ds.data.mapped_files import ArrayFile, join_mapped


def _write(folder: Path, lengths: list[int]) -> list[ArrayFile]:
    generator = np.random.default_rng(0)
    arrays = []
    for number, length in enumerate(lengths):
        path = folder / f"{number}.npy"
        np.save(path, generator.integers(1 << 32, size=length, dtype=np.uint32))
        arrays.append(ArrayFile(path, np.load(path, "r").offset, length, np.dtype("<u4")))
    return arrays


@pytest.mark.parametrize("platform", [sys.platform, "other"])
@pytest.mark.parametrize("lengths", [[5], [1, 992, 993, 20_000, 3], [1024] * 40])
def test_joined_files_hold_the_rows_of_each(
    tmp_path: Path, lengths: list[int], platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_files.sys, "platform", platform)
    arrays = _write(tmp_path, lengths)
    joined, begins = join_mapped(arrays)
    for array, begin in zip(arrays, begins.tolist(), strict=True):
        np.testing.assert_array_equal(joined[begin : begin + array.length], np.load(array.path))
    assert platform == "other" or not joined.flags.writeable


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the files are copied")
def test_the_pages_are_those_of_the_files_and_are_returned(tmp_path: Path) -> None:
    joined, begins = join_mapped(_write(tmp_path, [3000, 2000, 1000]))

    def mapped() -> list[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return sorted(Path(line.split()[-1]).name for line in lines if str(tmp_path) in line)

    assert mapped() == ["0.npy", "1.npy", "2.npy"]
    part = joined[int(begins[1]) :]
    del joined
    assert part[0] and len(mapped()) == 3  # as long as a view exists
    del part
    assert mapped() == []
