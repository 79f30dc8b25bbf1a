"""Run the commands of the recipes, in a new folder: `make recipes-check`.

Runs the blocks of each page that follow the line ``<!-- run by make recipes-check -->``, in the
order of ``PAGES``, since later recipes start from the output of earlier ones. By default in a short
form: ``STEPS`` is 3, so that every command runs but nothing is learned. ``--full`` runs them as
they stand on the pages.

python recipes/check.py [--full] [--folder FOLDER] [PAGE ...]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPES = Path(__file__).resolve().parent
REPOSITORY = RECIPES.parent
# Later pages need the output of own_folder.md.
PAGES = (
    "own_folder.md",
    "continue_on_a_domain.md",
    "long_context.md",
    "summarization.md",
    "another_language.md",
    "genomes.md",
)
# Programs that fetch the texts; a page is skipped without them.
NEEDS = dict.fromkeys(("another_language.md", "genomes.md"), ("apt-get", "dpkg"))
SHORT = {"STEPS": "3", "WARMUP": "1", "TEXTS": "8"}
BLOCK = re.compile(r"<!-- run by make recipes-check -->\n```sh\n(.*?)```", re.DOTALL)


def commands(page: Path) -> str:
    """The commands of a page that are run."""
    return "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))


def run(page: str, folder: Path, full: bool) -> bool:
    """Run the commands of a page in ``folder``; whether all succeeded."""
    missing = [name for name in NEEDS.get(page, ()) if shutil.which(name) is None]
    if missing:
        print(f"== {page}: skipped, {' and '.join(missing)} not found", flush=True)
        return True
    print(f"== {page}", flush=True)
    environment = os.environ | ({} if full else SHORT)
    environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    script = "set -euxo pipefail\n" + commands(RECIPES / page)
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", help="default: all, in order")
    parser.add_argument("--full", action="store_true", help="as on the pages, not in short form")
    parser.add_argument("--folder", type=Path, help="where to run (default: a temporary folder)")
    options = parser.parse_args()
    if unknown := set(options.pages) - set(PAGES):
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}; there are {', '.join(PAGES)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("launch", "configs", "examples", "recipes"):
            if not (folder / name).exists():
                (folder / name).symlink_to(REPOSITORY / name)
        for page in options.pages or PAGES:
            if not run(page, folder.resolve(), options.full):
                print(f"error: a command of recipes/{page} failed", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
