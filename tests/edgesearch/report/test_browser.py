"""The report in a real headless Chromium: console, hover, sorting, marking, keyboard, printing."""

import base64
import shutil
import time
from types import SimpleNamespace

import pytest

import edgesearch
from edgesearch.config import Config
from edgesearch.stages.report import report_on

selenium = pytest.importorskip("selenium", reason="the package selenium drives the browser")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ODD = ("<script>alert(1)<", "\"quotes\" & 'more'", "ünï 数字", "<img src=x onerror=alert(2)>")
WIDTHS = (400, 1600)
LARGEST_PAGE = 6_000_000
COMPARED = (
    *("finetune.task=classification", "finetune.epochs=1", "finetune.label_share=0.2"),
    *("finetune.tensorboard=false", "finetune.threads=1", "compare.baselines=[]"),
    *("compare.random=0", "compare.scaled=false", "compare.seeds=2", "compare.rounds=10"),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="chromium and chromium-driver are not installed"
    ),
]


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


def wait_until(true):
    deadline = time.monotonic() + 60
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.fixture
def opened(browser):
    """Opens a page in a window of some width; fails on any message of the console at the end."""

    def open_page(path, width=1600, scheme="light"):
        emulate = browser.execute_cdp_cmd
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        emulate("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        emulate("Emulation.setDeviceMetricsOverride", metrics)
        browser.get_log("performance")
        browser.get(path.absolute().as_uri())
        script = "return [...document.querySelectorAll('.plot')].every(p => p.dataset.drawn)"
        wait_until(lambda: browser.execute_script(script))
        return browser

    yield open_page
    assert browser.get_log("browser") == []


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    finished[0].api().write_report(path)
    return path


@pytest.fixture(scope="module")
def odd(small_config, tmp_path_factory):
    """The report of a run on images whose classes have odd names."""
    root = tmp_path_factory.mktemp("odd")
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number in range(400):
        label = digits.target[number] % len(ODD)
        folder = root / "images" / ODD[label]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] * 15).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{number}.png")
    values = {
        **small_config,
        "output_dir": str(root / "a <b> & 'c'"),
        "data": {"source": "folder", "root": str(root / "images")},
    }
    run = edgesearch.Run(Config.model_validate(values))
    return SimpleNamespace(path=run.run().report_path, root=root)


def visible(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_fits_its_window(opened, report, width, scheme):
    browser = opened(report, width, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    charts = visible(browser, ".plot")
    assert len(charts) >= 4
    for chart in charts:
        assert chart.size["width"] <= width
        assert chart.find_elements(By.CSS_SELECTOR, "svg.main-svg")
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(colour.split("(")[1].split(",")[0])
    assert (red > 128) == (scheme == "light")


def test_asks_the_network_for_nothing(opened, report):
    browser = opened(report)
    asked = [
        entry["message"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    urls = [part.split('"', 1)[0] for text in asked for part in text.split('"url":"')[1:]]
    assert any(url.startswith("file:") for url in urls)
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:"))] == []


def rows_of(browser):
    return [
        [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
        for row in visible(browser, ".trials tbody tr")
    ]


def test_trials_are_sorted_and_filtered(opened, report):
    browser = opened(report)
    rows = rows_of(browser)
    assert len(rows) == 12
    agreements = [float(row[2]) for row in rows]
    assert agreements == sorted(agreements, reverse=True)
    for name, column in (("latency (ms)", 3), ("architecture", 0)):
        buttons = visible(browser, ".trials thead button")
        (button,) = (each for each in buttons if each.text.strip().startswith(name))
        button.click()
        values = [row[column] for row in rows_of(browser)]
        assert values == sorted(values, key=lambda v: float(v) if column else v)
        (heading,) = visible(browser, ".trials th[aria-sort]")
        assert heading.get_attribute("aria-sort") == "ascending"
        button.send_keys(Keys.ENTER)
        assert [row[column] for row in rows_of(browser)][0] == values[-1]
    (box,) = visible(browser, ".trials input")
    box.send_keys("stem_width=8 agreement>0.0001")
    found = rows_of(browser)
    assert 0 < len(found) < 12
    assert all(row[0].startswith("stem8_") for row in found)
    (shown,) = visible(browser, ".trials .shown")
    assert shown.text == f"{len(found)} of 12 trials"
    box.clear()
    box.send_keys("nothing like this")
    assert rows_of(browser) == []


def test_hover_shows_the_architecture_and_click_marks_it(opened, report):
    browser = opened(report)
    (chart,) = visible(browser, "#run0-pareto0")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    spot = "const p = document.getElementById('run0-pareto0'), l = p._fullLayout, t = p.data[0];"
    x, y, name = browser.execute_script(
        f"{spot} const b = p.getBoundingClientRect();"
        "return [l.xaxis.l2p(t.x[0]) + l.xaxis._offset - b.width / 2,"
        " l.yaxis.l2p(t.y[0]) + l.yaxis._offset - b.height / 2, t.hovertext[0]]"
    )
    ActionChains(browser).move_to_element_with_offset(chart, round(x), round(y)).perform()
    texts = wait_until(lambda: [each.text for each in visible(browser, "#run0-pareto0 .hovertext")])
    assert name in " ".join(texts)
    ActionChains(browser).move_to_element_with_offset(chart, round(x), round(y)).click().perform()
    (marked,) = wait_until(lambda: visible(browser, "tr.marked"))
    assert marked.find_element(By.TAG_NAME, "button").text == name
    rings = "return document.getElementById('run0-pareto0').data.filter(t => t.name === 'marked')"
    assert len(browser.execute_script(rings)) == 1


def test_a_row_marks_its_point_and_the_keyboard_reaches_everything(opened, report):
    browser = opened(report)
    button = visible(browser, ".trials tbody button")[3]
    button.send_keys(Keys.ENTER)
    mark = "return document.getElementById('run0-pareto0').data.find(t => t.name === 'marked')"
    ring = wait_until(lambda: browser.execute_script(mark))
    assert f"{ring['y'][0]:.4f}" == rows_of(browser)[3][2]
    (chart,) = visible(browser, "#run0-pareto0")
    chart.send_keys(Keys.ARROW_RIGHT)
    chart.send_keys(Keys.ARROW_RIGHT)
    (said,) = visible(browser, "#said")
    first = said.get_attribute("textContent")
    assert first.startswith("stem")
    chart.send_keys(Keys.ENTER)
    (marked,) = visible(browser, "tr.marked")
    assert marked.find_element(By.TAG_NAME, "button").text == first.split(":")[0]
    assert browser.switch_to.active_element.text == first.split(":")[0]


def test_follows_a_change_to_dark(opened, report):
    browser = opened(report)
    colour = "return document.getElementById('run0-pareto0')._fullLayout.font.color"
    light = browser.execute_script(colour)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    wait_until(lambda: browser.execute_script(colour) != light)


def test_prints_everything_on_light_paper(opened, report):
    browser = opened(report, scheme="dark")
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    closed = "return document.querySelectorAll('details:not([open])').length"
    assert browser.execute_script(closed) == 0
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 50_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    paper = "return getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()"
    assert browser.execute_script(paper) == "#1d2329"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_odd_names_run_nothing_and_are_shown(opened, odd):
    browser = opened(odd.path, 400)
    shown = {each.get_attribute("textContent") for each in visible(browser, ".tile figcaption")}
    assert set(ODD) <= shown
    assert "a <b> & 'c'" in browser.find_element(By.TAG_NAME, "h1").text
    with pytest.raises(Exception, match="no such alert|alert"):
        _ = browser.switch_to.alert.text


def test_several_runs_on_one_page(opened, odd, report, finished):
    path = odd.root / "both.html"
    report_on([str(finished[0].output_dir), str(odd.path.parent)], output=path)
    browser = opened(path)
    assert "2 runs compared" in browser.find_element(By.TAG_NAME, "h1").text
    assert len(visible(browser, ".trials")) == 2
    button = visible(browser, "#run1-search .trials tbody button")[0]
    button.send_keys(Keys.ENTER)
    assert len(visible(browser, "#run1-search tr.marked")) == 1
    assert visible(browser, "#run0-search tr.marked") == []


@pytest.fixture(scope="module")
def with_labels(finished, tuned_for, tmp_path_factory):
    """Pages of fine-tuned networks by task, and of a comparison."""
    root = tmp_path_factory.mktemp("labels")
    chain = finished[0].copied(root)
    chain.passes("compare", *COMPARED)
    pages = {"comparison": chain.output_dir / "report.html"}
    report_on([str(chain.output_dir)])
    for task in ("classification", "detection", "segmentation"):
        pages[task] = root / f"{task}.html"
        tuned_for(task).write_report(pages[task])
    return pages


SECTIONS = ("classification", "detection", "segmentation", "comparison")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SECTIONS)
def test_sections_on_labels_fit_their_window(opened, with_labels, name, width, scheme):
    assert with_labels[name].stat().st_size <= LARGEST_PAGE
    browser = opened(with_labels[name], width, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    section = "#run0-comparison" if name == "comparison" else "#run0-task"
    (found,) = visible(browser, section)
    assert found.is_displayed()
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    # What is wider than the window is scrolled by keyboard, too.
    for table in visible(browser, f"{section} .scroll"):
        if browser.execute_script(
            "const e = arguments[0]; return e.scrollWidth > e.clientWidth", table
        ):
            browser.execute_script("arguments[0].focus()", table)
            assert browser.switch_to.active_element == table


def test_predictions_are_told_without_colour(opened, with_labels):
    browser = opened(with_labels["detection"])
    pictures = visible(browser, ".examples.detection img")
    assert pictures
    assert all("boxes as labelled" in each.get_attribute("alt") for each in pictures)
    browser = opened(with_labels["classification"])
    assert len(visible(browser, "#run0-task table")) >= 3  # figures, classes, confusion
    browser = opened(with_labels["segmentation"])
    names = {
        each.text for each in visible(browser, "#run0-task .legend li, #run0-task .legend span")
    }
    assert names - {""}


def test_a_compared_network_is_named_on_hover(opened, with_labels):
    browser = opened(with_labels["comparison"])
    (chart,) = visible(browser, "#run0-comparison-chart")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    x, y = browser.execute_script(
        "const p = arguments[0], l = p._fullLayout, t = p.data[0], b = p.getBoundingClientRect();"
        "return [l.xaxis.l2p(l.xaxis.type === 'log' ? Math.log10(t.x[0]) : t.x[0])"
        " + l.xaxis._offset - b.width / 2, l.yaxis.l2p(t.y[0]) + l.yaxis._offset - b.height / 2]",
        chart,
    )
    ActionChains(browser).move_to_element_with_offset(chart, round(x), round(y)).perform()
    hover = "#run0-comparison-chart .hovertext"
    texts = wait_until(lambda: [each.text for each in visible(browser, hover)])
    rows = [each.text.split()[0] for each in visible(browser, "#run0-comparison tbody th")]
    assert len(rows) >= 3
    assert any(name in " ".join(texts) for name in rows)
