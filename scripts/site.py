"""MkDocs hooks: README.md is the first page; files outside docs/ that a page links to are published; links follow them."""

import os
import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(\[([^\]]*)\])\((?![\w+]+:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> None:
    pages = [outside(config, "README.md"), *files.documentation_pages()]
    files.append(pages[0])
    for page in pages:
        for _, _, path, _ in LINK.findall(page.content_string):
            linked = in_repository(path, page)
            if not files.get_file_from_path(in_site(linked)) and (ROOT / linked).is_file():
                files.append(outside(config, linked))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    return LINK.sub(lambda link: moved(link, page.file), markdown)


def outside(config: MkDocsConfig, path: str) -> File:
    return File.generated(config, in_site(path), abs_src_path=os.fspath(ROOT / path))


def moved(link: re.Match[str], page: File) -> str:
    """The link as the site has it: to a directory's README.md where there is one; the bare text for other directories."""
    name, text, path, anchor = link.groups()
    linked = in_repository(path, page)
    if (ROOT / linked).is_dir():
        linked += "/README.md"
        if not (ROOT / linked).is_file():
            return text
    return f"{name}({relpath(in_site(linked), dirname(page.src_uri) or '.')}{anchor or ''})"


def in_repository(path: str, page: File) -> str:
    return normpath(join("" if page.generated_by else join("docs", dirname(page.src_uri)), path))


def in_site(path: str) -> str:
    return "index.md" if path == "README.md" else path.removeprefix("docs/")
