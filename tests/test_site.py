"""The documentation as a site: built strictly, every question found by its search, whole in light, dark and narrow."""

import functools
import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import browser

pytest.importorskip("material", reason="pip install 'liouville[docs]'")
pytest.importorskip("mkdocstrings", reason="pip install 'liouville[docs]'")

ROOT = Path(__file__).parent.parent
FAQ = (ROOT / "docs" / "faq.md").read_text()
QUESTIONS = re.findall(r"^### ([^\n]*\?)\n\n(?:[^#]*?)\]\(([^)]*)\)", FAQ, re.MULTILINE)
TYPED = {  # what somebody types who has not seen the question, and the page that answers
    "freeze": "own-stack/",
    "freeze layers": "own-stack/",
    "weight decay bias": "own-stack/",
    "lightning": "own-stack/",
    "onnx": "deploy/",
    "csv": "own-data/",
    "missing values": "own-data/",
    "dataloader": "training/",
    "resume": "own-stack/",
    "which engine": "choosing/",
    "why slow": "faq/",
    "checkpointing": "reversible-or-checkpointing/",
    "hugging face": "reversible-stacks/",
    "mask": "extending/",
    "own field": "extending/",
    "processes": "distributed/",
    "gpu": "gpu/",
    "exploding gradients": "sensitivities/",
    "gradients explode": "guarantees/",
    "certificate": "certificates/",
    "torchdiffeq": "coming-from/",
    "tab completion": "command/",
    "config file": "command/",
    "scikit-learn": "estimators/",
}
FIRST = 5  # results that somebody reads in a minute
PAGES = ("", "choosing/", "own-stack/", "faq/", "api/training/", "reproduce/", "deploy/", "command/")


def test_there_are_at_least_twenty_questions():
    assert len(QUESTIONS) >= 20 and len(QUESTIONS) == FAQ.count("\n### ")


def test_every_page_stands_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r": (\S+\.md)$", text, re.MULTILINE)
    there = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(named) == sorted(there)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, which was built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_question_is_found_by_the_search(site):
    from selenium.webdriver.common.by import By

    missed = {}
    with browser.browser(1280) as driver:
        for question, target in [*QUESTIONS, *TYPED.items()]:
            driver.get(site)
            box = driver.find_element(By.CSS_SELECTOR, "[data-md-component=search-query]")
            box.click()
            box.send_keys(question.rstrip("?"))
            links = "document.querySelectorAll('.md-search-result__item > .md-search-result__link')"
            browser.wait(
                driver,
                f"{links}.length && !document.querySelector('.md-search-result__meta').innerText.startsWith('Init')",
            )
            found = driver.execute_script(f"return [...{links}].map((a) => a.href)")
            pages = list(dict.fromkeys(re.sub(r"[?#].*", "", href).removeprefix(site) for href in found))[:FIRST]
            wanted = target.partition("#")[0].replace(".md", "/")
            if wanted not in pages and (question in TYPED or "faq/" not in pages):
                missed[question] = (target, pages)
    assert not missed, missed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (420, False)])
def test_pages_are_whole_in_every_light_and_width(site, width, dark):
    """No error in the console, nothing wider than the window, no line of code cut."""
    with browser.browser(width, dark) as driver:
        for page in PAGES:
            driver.get(site + page)
            browser.wait(driver, "document.readyState === 'complete'")
            scheme = driver.execute_script("return document.body.getAttribute('data-md-color-scheme')")
            assert scheme == ("slate" if dark else "default"), page
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width, page
            cut = "[...document.querySelectorAll('pre > code')].filter((c) => c.scrollWidth > c.clientWidth + 1).length"
            assert driver.execute_script(f"return {cut}") == 0, page
            broken = "[...document.images].filter((i) => i.complete && !i.naturalWidth).map((i) => i.src)"
            assert driver.execute_script(f"return {broken}") == [], page
        assert browser.errors(driver) == []


@pytest.mark.slow
def test_the_switch_makes_it_dark_and_the_reference_begins_with_what_is_used_most(site):
    with browser.browser(1280) as driver:
        driver.get(site)
        for expected in ("default", "slate"):
            driver.execute_script(
                "document.querySelector('label.md-header__button[for^=__palette]:not([hidden])').click()"
            )
            browser.wait(driver, f"document.body.getAttribute('data-md-color-scheme') === '{expected}'")
        for page, first in (("training", "fit"), ("analysis", "certify"), ("data", "load"), ("networks", "Images")):
            driver.get(f"{site}api/{page}/")
            heading = driver.execute_script("return document.querySelector('h3.doc-heading').innerText")
            assert heading.startswith(first), (page, heading)
            signature = "document.querySelector('.doc-signature').innerText"
            assert driver.execute_script(f"return {signature}").startswith(f"{first}(")
