"""What ``bigbird-ds doctor`` says of memory, a folder and the network, with faults injected."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigbird_ds import files
from bigbird_ds.cli.main import main
from bigbird_ds.training.reports import environment_report, host_report
from bigbird_ds.training.reports.host_report import (
    Entry,
    folder_entries,
    memory_entries,
    network_entries,
)


def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries}


def test_little_memory_and_little_shared_memory_are_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=8 << 20))
    monkeypatch.setattr(host_report, "_cgroup_rest", lambda: 512 << 20)
    found = by_name(list(memory_entries()))
    assert found["shared memory"].found == "/dev/shm of 8 MiB"
    assert "--shm-size=1g" in found["shared memory"].remedy
    assert "control group 0.5 GiB" in found["memory"].found
    assert "bigbird-ds plan" in found["memory"].remedy


@pytest.mark.parametrize(
    ("line", "top", "limit", "usage"),
    [
        ("0::/job/step", "", "memory.max", "memory.current"),
        ("4:memory:/job/step", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)
def test_the_tightest_control_group_counts(
    line: str, top: str, limit: str, usage: str, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(f"9:cpu:/elsewhere\n{line}\n")
    step = tmp_path / "root" / top / "job" / "step"
    step.mkdir(parents=True)
    (step / limit).write_text("max\n" if limit == "memory.max" else "9223372036854771712\n")
    (step.parent / limit).write_text("3000\n")
    (step.parent / usage).write_text("1000\n")
    assert host_report._cgroup_rest(tmp_path / "root", tmp_path / "own") == 2000


def test_a_good_folder_has_locks_and_renames_and_stays_empty(tmp_path: Path) -> None:
    found = by_name(list(folder_entries(tmp_path)))
    assert [name for name, entry in found.items() if entry.remedy] == []
    assert found["file locks"].found == "hold between processes of this host"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_folder_that_cannot_be_written_gives_exit_code_1(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment_report, "_IMPORTS", "")  # they take seconds
    (tmp_path / "file").touch()
    assert main(["doctor", "--folder", str(tmp_path / name)]) == 1
    out = capsys.readouterr().out
    assert f"x folder         {tmp_path / name} cannot be written" in out
    assert "needed for checkpoints" in out
    assert "No run can start here: folder." in out
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_locks_are_odd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_locks(stream: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "lock", no_locks)
    entry = by_name(list(folder_entries(tmp_path)))["file locks"]
    assert entry.found == "no locks: No locks available"
    assert entry.remedy and not entry.stops


def test_a_lock_that_a_second_process_gets_too_is_odd(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "lock", lambda stream: None)
    entry = by_name(list(folder_entries(tmp_path)))["file locks"]
    assert entry.found == "a second process gets the lock too"


def test_a_rename_that_fails_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(temporary: Path, final: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(files, "replace_folder", refused)
    assert by_name(list(folder_entries(tmp_path)))["atomic rename"].stops


@pytest.mark.parametrize(("umask", "odd"), [(0o022, False), (0o000, True), (0o700, True)])
def test_a_umask_that_hides_or_opens_files_is_odd(umask: int, odd: bool, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        entry = by_name(list(folder_entries(tmp_path)))["umask"]
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert entry.found == f"{umask:04o}"
    assert bool(entry.remedy) is odd


@pytest.mark.parametrize(
    ("address", "odd"), [("127.0.1.1", True), ("10.1.2.3", False), (None, True)]
)
def test_a_host_name_without_a_network_address_is_odd(
    address: str | None, odd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*_: object, **__: object) -> list[object]:
        if address is None:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    entry = next(network_entries())
    assert (address or "does not resolve") in entry.found
    assert bool(entry.remedy) is odd and not entry.stops


def test_a_taken_port_says_how_to_choose_another() -> None:
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        port = holder.getsockname()[1]
        entry = host_report._port_entry(port)
    assert entry.found == "taken: Address already in use"
    assert "--master_port" in entry.remedy
    assert not host_report._port_entry(port).remedy
