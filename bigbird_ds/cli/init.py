"""``bigbird-ds init``: write the launch scripts and configs to a user's own folder.

They are ``launch/`` and ``configs/`` of the repository. A wheel carries them as data
(``setup.py``), so that an installed package has them too.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from bigbird_ds import files
from bigbird_ds.errors import ConfigError

_FOLDERS = ("launch", "configs")
_PACKAGE = Path(__file__).resolve().parents[1]
_LISTED = 3  # files named in an error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write to")
    parser.add_argument("--force", action="store_true", help="overwrite files that differ")


def run(arguments: argparse.Namespace) -> int:
    source = _PACKAGE / "_project"
    if not source.is_dir():  # not installed from a wheel
        source = _PACKAGE.parent
    written = write_project(source, arguments.folder, force=arguments.force)
    print(f"{arguments.folder}: {written} files written to launch/ and configs/")
    return 0


def write_project(source: Path, folder: Path, *, force: bool) -> int:
    """Copy the launch scripts and configs from ``source`` to ``folder``: all, or none on an error.

    Args:
        force: overwrite files that differ.

    Returns:
        The number of files written; identical ones are kept.

    Raises:
        ConfigError: files that differ exist, or ``folder`` cannot be written to.
    """
    new = [name for name in project_files(source) if not _same(source / name, folder / name)]
    _check_no_conflict(folder, new, force)
    files.make_folder(folder, ConfigError, "FOLDER")
    staged = files.temporary_name(folder / "init")
    try:
        with files.report_full_disk(folder, ConfigError, "FOLDER"):
            for name in new:
                (staged / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / name, staged / name)
        for parent in {(folder / name).parent for name in new}:
            files.make_folder(parent, ConfigError, "FOLDER")
        for name in new:
            (staged / name).replace(folder / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return len(new)


def project_files(source: Path) -> list[str]:
    """The paths of all launch scripts and configs, relative to ``source``."""
    return sorted(
        path.relative_to(source).as_posix()
        for name in _FOLDERS
        for path in (source / name).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    )


def _same(source: Path, target: Path) -> bool:
    return target.is_file() and target.read_bytes() == source.read_bytes()


def _check_no_conflict(folder: Path, names: list[str], force: bool) -> None:
    """Raise ConfigError if writing ``names`` would replace something."""
    present = [name for name in names if (folder / name).exists()]
    if present and not force:
        more = f" and {len(present) - _LISTED} more" if len(present) > _LISTED else ""
        raise ConfigError(
            "files that differ would be overwritten",
            seen=f"in {folder}: " + ", ".join(present[:_LISTED]) + more,
            needed="a folder without them",
            change="FOLDER, or --force to overwrite them",
        )
    for name in names:
        parents = [folder / parent for parent in Path(name).parents if parent.name]
        blocked = [path for path in parents if path.exists() and not path.is_dir()]
        blocked += [folder / name] if (folder / name).is_dir() else []
        if blocked:
            raise ConfigError(
                "launch scripts and configs cannot be written",
                seen=f"{blocked[0]} is {'a folder' if blocked[0].is_dir() else 'a file'}",
                needed=f"a writable path {folder / name}",
                change="FOLDER",
            )
