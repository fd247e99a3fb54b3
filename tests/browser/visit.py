"""A visit to the console, and the words that its visitors must not fall for."""

from playwright.async_api import ConsoleMessage, Page, Request

HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)> {{ 7 * 7 }} \u202egnp.exe"
"""Markup, a template and a text that turns the direction of what follows."""
HOSTILE_SERVICE = "evil.~:@-service"


class Visit:
    """A page of the console, and what the browser complained of meanwhile."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location['url']})")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.strangers.append(request.url)

    async def open(self, path: str) -> Page:
        """Go to a page of the console."""
        await self.page.goto(self.url + path, wait_until="load")
        return self.page
