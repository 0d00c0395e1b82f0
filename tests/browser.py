"""A headless Chromium for the tests marked ``browser``, by WebDriver: HTTP and JSON, no library."""

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--disable-dev-shm-usage"]
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the environment
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Space": " ", "Left": "\ue012", "Right": "\ue014",
        "Home": "\ue011", "End": "\ue010"}


class Browser:
    """One window. ``dark`` and ``size`` are what the page is told of the reader's screen."""

    def __init__(self, port, profile, size=(1200, 900), dark=False):
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"binary": CHROMIUM, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        found = self.ask("POST", "", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.base += f"/{found['sessionId']}"
        self.command("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1],
                     deviceScaleFactor=1, mobile=size[0] < 600)
        self.command("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def ask(self, method, path, body=None):
        request = urllib.request.Request(self.base + path, method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        try:
            with OPENER.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:1000]) from None

    def command(self, name, **parameters):
        """A command of Chromium's own protocol."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def open(self, address):
        self.ask("POST", "/url", {"url": str(address)})

    def run(self, script, *arguments):
        """The value of a function body of JavaScript; a promise is waited for."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def press(self, *keys):
        actions = [{"type": kind, "value": KEYS[key]} for key in keys
                   for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys",
                                                   "actions": actions}]})

    def log(self):
        """What the console was told since the last call."""
        return [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]

    def picture(self, path, whole=False):
        """Write a screenshot of the window, or of the whole page."""
        found = self.command("Page.captureScreenshot", captureBeyondViewport=whole,
                             **({"clip": {**self.run(
                                 "return {x: 0, y: 0, width: document.body.scrollWidth, "
                                 "height: document.documentElement.scrollHeight, scale: 1}")}}
                                if whole else {}))
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def close(self):
        self.ask("DELETE", "")


@contextlib.contextmanager
def browser(**settings):
    """A new browser with an empty profile."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True,
                                  stderr=subprocess.DEVNULL)
        try:
            line = next(line for line in driver.stdout if "successfully on port" in line)
            window = Browser(int(line.rstrip(".\n").rsplit(" ", 1)[1]), profile, **settings)
            try:
                yield window
            finally:
                window.close()
        finally:
            driver.terminate()
            driver.wait()


def wait(condition, seconds=10.0):
    """Until a condition holds; AssertionError after the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
