"""Hooks of mkdocs: links of the repository work on the site, and the navigation follows index.md.

The site holds docs/ at its root. A file elsewhere in the repository that a page links to comes
along under its path from the repository's root, so every link that works in the repository works
on the site. README.md becomes start.md: mkdocs takes a page named README for the first one.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
BOLD = re.compile(r"\*\*(.+)\*\*$")
LINK = re.compile(r"\]\((?!\w+:|#|<)([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Order the pages as index.md links to them, in sections that its bold lines name."""
    sections: dict[str, list[str]] = {"": ["index.md", to_site("README.md")]}
    title = ""
    for line in (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines():
        if bold := BOLD.match(line):
            title = bold[1]
        elif line.startswith("- "):
            pages = [to_site(path) for path in links(line, "docs/index.md")]
            sections.setdefault(title, []).extend(page for page in pages if page.endswith(".md"))
    listed = {page for pages in sections.values() for page in pages}
    docs = Path(config.docs_dir)
    rest = [path.name for path in sorted(docs.glob("*.md")) if path.name not in listed]
    api = [f"api/{path.name}" for path in sorted((docs / "api").glob("*.md"))]
    config.nav = [*sections.pop(""), *({name: sections[name]} for name in sections), *rest]
    config.nav.append({"API reference": api})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/ that pages link to, and the files that those link to."""
    waiting = [to_repository(file.src_uri) for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for path in linked_paths(page):
            site_path = to_site(path)
            if files.get_file_from_path(site_path) is None and (ROOT / path).is_file():
                files.append(File.generated(config, site_path, abs_src_path=str(ROOT / path)))
                if path.endswith(".md"):
                    waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links from places in the repository to places on the site."""
    here = page.file.src_uri

    def rewritten(match: re.Match[str]) -> str:
        target = to_site(resolve(to_repository(here), match[1]))
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{match[2] or ''})"

    return LINK.sub(rewritten, markdown)


def linked_paths(page: str) -> list[str]:
    """Where the relative links of a page lead; all paths are relative to the repository's root."""
    return links((ROOT / page).read_text(encoding="utf-8"), page)


def links(text: str, page: str) -> list[str]:
    return [resolve(page, match[1]) for match in LINK.finditer(text)]


def resolve(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def to_site(path: str) -> str:
    """The path on the site of a path in the repository."""
    return "start.md" if path == "README.md" else path.removeprefix("docs/")


def to_repository(site_path: str) -> str:
    """The path in the repository of a path on the site."""
    if site_path == "start.md":
        return "README.md"
    in_docs = f"docs/{site_path}"
    return in_docs if (ROOT / in_docs).exists() else site_path
