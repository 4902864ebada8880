"""The report in a browser: drawn without an error, moved by the keyboard, in light, in dark and on a phone."""

import io

import pytest

import browser
import liouville as lv
from liouville import runs

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.slow

EVIL = ("<script>alert(1)</script>", "<img src=x onerror=alert(2)>")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    split = lv.data.load("swiss-roll", points=300)
    split = lv.data.Split(split.x_train, split.y_train, split.x_test, split.y_test, EVIL[0], 2, label_names=EVIL)
    plan = runs.Plan(data=None, layers=12, T=2.0, settings=lv.train.Settings(epochs=3))
    run = runs.train(plan, split, out=tmp_path_factory.mktemp("runs") / "run")
    return lv.report.html(run), lv.report.html(run, run, path=run.path / "both.html")


def opened(driver, path):
    driver.get(path.as_uri())
    browser.wait(driver, "document.documentElement.getAttribute('data-drawn')")
    assert driver.execute_script("return document.querySelectorAll('.chart:not(:has(svg, canvas))').length") == 0
    higher = "[...document.querySelectorAll('.chart')].filter((c) => c.scrollHeight > c.clientHeight + 1).length"
    assert driver.execute_script(f"return {higher}") == 0  # else it covers what follows it
    assert browser.errors(driver) == []


def test_the_slider_moves_the_points_and_the_view_by_the_keyboard(report):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with browser.browser() as driver:
        opened(driver, report[0])
        slider = driver.find_element(By.CSS_SELECTOR, "[id$=-depth]")
        name = slider.get_attribute("id").removesuffix("-depth")
        across = f"[...document.getElementById('{name}-plane').data[0].x]"
        up = f"[...document.getElementById('{name}-space').data[0].z]"
        before = [driver.execute_script(f"return {values}") for values in (across, up)]
        slider.send_keys(Keys.ARROW_RIGHT)
        where = driver.find_element(By.ID, f"{name}-where")
        assert where.text == slider.get_attribute("aria-valuetext") and where.text.startswith("layer 1 of 12")
        after = [driver.execute_script(f"return {values}") for values in (across, up)]
        assert all(len(a) == len(b) > 10 and a != b for a, b in zip(before, after, strict=True))
        turn, camera = driver.find_element(By.ID, f"{name}-turn"), f"document.getElementById('{name}-space')"
        eye = f"{camera}._fullLayout.scene.camera.eye.x"
        seen = driver.execute_script(f"return {eye}")
        turn.send_keys(Keys.ARROW_RIGHT)
        browser.wait(driver, f"{eye} !== {seen}")
        slider.send_keys(Keys.ARROW_RIGHT)
        assert driver.execute_script(f"return {eye}") != seen  # it is kept while the depth moves
        driver.find_element(By.ID, f"{name}-play").send_keys(Keys.ENTER)
        browser.wait(driver, f"document.getElementById('{name}-depth').value === '12'")
        assert browser.errors(driver) == []


def test_names_of_others_run_nothing_and_stand_on_the_page(report):
    from selenium.common.exceptions import NoAlertPresentException
    from selenium.webdriver.common.by import By

    with browser.browser() as driver:
        opened(driver, report[1])
        with pytest.raises(NoAlertPresentException):
            _ = driver.switch_to.alert
        assert EVIL[0] in driver.find_element(By.TAG_NAME, "main").text
        legends = "return [...document.querySelectorAll('.legendtext')].map((node) => node.textContent)"
        assert set(EVIL) <= set(driver.execute_script(legends))
        assert driver.execute_script("return document.querySelectorAll('img').length") == 0


def test_a_page_follows_dark_and_light_and_fits_a_phone(report, tmp_path):
    with browser.browser(420, dark=True) as driver:
        opened(driver, report[0])
        ink = "document.querySelector('.xtitle').style.fill"
        dark = driver.execute_script(f"return {ink}")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 420
        browser.screenshot(driver, tmp_path / "dark.png")
        browser.scheme(driver, dark=False)
        browser.wait(driver, f"{ink} !== '{dark}'")
        browser.screenshot(driver, tmp_path / "light.png")
        assert browser.errors(driver) == []
    from matplotlib.image import imread

    assert imread(tmp_path / "dark.png")[:40].mean() < 0.5 < imread(tmp_path / "light.png")[:40].mean()


def test_the_titles_of_axes_in_space_lie_inside_on_a_phone(report):
    from matplotlib.image import imread
    from selenium.webdriver.common.by import By

    turned = """
        const [angle, done] = arguments, turn = document.querySelector("[id$=-turn]");
        document.querySelector("[id$=-space]").once("plotly_relayout", () => setTimeout(done, 300));
        turn.value = angle;
        turn.dispatchEvent(new Event("input"));
    """
    with browser.browser(420) as driver:
        driver.set_script_timeout(60)
        opened(driver, report[0])
        figure = driver.find_element(By.CSS_SELECTOR, "[id$=-space]")
        for angle in range(0, 360, 45):
            driver.execute_async_script(turned, angle)
            picture = imread(io.BytesIO(figure.screenshot_as_png))[..., :3]
            ink = abs(picture - picture[0, 0]).max(-1) > 0.1
            assert ink.any()
            assert not any(edge.any() for edge in (ink[:, :2], ink[:, -2:], ink[:2], ink[-2:])), f"{angle} degrees"
