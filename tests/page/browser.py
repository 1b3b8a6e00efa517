"""Helpers for tests of pages: open one in Chromium without a window, and read what it became."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


def chromium(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page in Chromium without a window."""
    quiet = (
        "--headless --no-sandbox --disable-gpu --hide-scrollbars --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync --enable-logging=stderr "
        "--virtual-time-budget=20000"
    )
    return subprocess.run(
        [str(CHROMIUM), *quiet.split(), f"--user-data-dir={page.parent / 'profile'}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def asked(text: str, script: str, folder: Path, width: int = 1400) -> Any:
    """Show a page in a frame, run the body of an asynchronous function in it, and return its result.

    A window of Chromium cannot be as narrow as a phone, and a frame can. Nothing may be said on the console.
    """
    page, frame = folder / "index.html", folder / "frame.html"
    answer = (
        "<script>addEventListener('load', () => setTimeout(async () => {"
        f"const found = await (async () => {{ {script} }})();"
        "parent.postMessage(JSON.stringify(found), '*'); }, 300));</script>"
    )
    page.write_text(text.replace("</body>", answer + "</body>"), encoding="utf-8")
    frame.write_text(
        f"<p id=found></p><iframe width={width} height=800 style='border:0' src='index.html'></iframe>"
        "<script>onmessage = (event) => { document.getElementById('found').textContent = event.data; }</script>"
    )
    found = chromium(frame, "--dump-dom", f"--window-size={max(800, width + 40)},900")
    assert "CONSOLE" not in found.stderr, found.stderr
    return json.loads(html.unescape(re.search(r'id="found">(.*?)</p>', found.stdout, re.DOTALL)[1]))  # type: ignore[index]
