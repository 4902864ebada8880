"""Debian's Chromium without a window, by Selenium; tests that need it are skipped where it is missing."""

from __future__ import annotations

import base64
import contextlib
import shutil

import pytest

BINARY, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextlib.contextmanager
def browser(width=1100, dark=False):
    """A browser with a page of this width, in light or dark."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the browser is driven by selenium")
    if BINARY is None or DRIVER is None:
        pytest.skip("there is no chromium, or no chromedriver (Debian's packages chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = BINARY
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",
        "--enable-unsafe-swiftshader",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme(driver, dark)
        yield driver
    finally:
        driver.quit()


def scheme(driver, dark):
    """Ask for a light or a dark page."""
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(driver, script, seconds=60):
    """What a script returns, as soon as that is something."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds, poll_frequency=0.1).until(lambda d: d.execute_script(f"return {script}"))


def errors(driver):
    """What the console says of errors."""
    return [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]


def screenshot(driver, path):
    """The whole page as a PNG."""
    size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(taken["data"]))
