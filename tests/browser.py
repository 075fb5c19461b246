"""Pages opened in a real browser, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from pepr_mlops.report import dashboards, page
from pepr_mlops.report.material import Material

BARE = dashboards.parse({"title": "Skin lesions", "figure": [{"kind": "plane"}]}, "tests")


def written(found: Material, folder: Path, **options: Any) -> Path:
    """A page with a single figure of Python's."""
    path = folder / "page.html"
    text = page.html(found, BARE, command="pepr report", made="now", **options)
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def opened(browser: Any, path: Path, settings: str = "", **context: Any) -> Iterator[Page]:
    """The page, drawn, with `settings` in its address; a request to a network, a warning, an error
    or a dialog fails the test."""
    wrong: list[str] = []
    own = browser.new_context(offline=True, **context)
    tab = own.new_page()
    tab.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    tab.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url),
    )
    tab.goto(f"file://{path}#{settings}")
    tab.wait_for_function("() => document.documentElement.dataset.drawn === 'yes'")
    yield tab
    own.close()
    assert wrong == []
