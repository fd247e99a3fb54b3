"""The system's Chromium, driven by Playwright."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.async_api import Browser, async_playwright, expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# What is waited for comes at once on an idle machine; beside four other processes of tests it may take long.
expect.set_options(timeout=20_000)


@contextlib.asynccontextmanager
async def browser(*arguments: str) -> AsyncIterator[Browser]:
    """Run the system's Chromium for the length of the block, with further arguments of its command line."""
    assert CHROMIUM is not None
    # Chromium refuses its sandbox to root; what it opens here is our own.
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=Path(CHROMIUM),
            args=[*sandbox, "--disable-dev-shm-usage", "--force-color-profile=srgb", *arguments],
        )
        yield chromium
        await chromium.close()
