"""The page in the distribution's browser, headless, on a phone, a tablet and a desk; skipped where there is none."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from support.params import mostly_slow

NAMES = mostly_slow(["training", "decode", "flows"], "training", "flows")
WIDTHS = [360, pytest.param(768, marks=pytest.mark.slow), 1440]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FolderOf = Callable[[str], Path]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: `apt-get install chromium` has it"
)

# Texts that reach past the screen or, in a box that scrolls, past what it scrolls to; boxes that hide what they hold.
CUT = """() => {
  const cut = [], width = document.documentElement.clientWidth;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, box = text.parentElement.closest('.scroll');
    if (!text.data.trim() || text.parentElement.closest('.skip')) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    const at = range.getBoundingClientRect();
    if (!at.width) { cut.push('not shown: ' + text.data.trim()); continue; }
    let left = 0, right = width;
    if (box) {
      left = box.getBoundingClientRect().left - box.scrollLeft;
      right = left + Math.max(box.scrollWidth, box.clientWidth);
    }
    if (at.left < left - 1 || at.right > right + 1) cut.push('cut: ' + text.data.trim());
  }
  for (const element of document.querySelectorAll('body *:not(.scroll, img, svg, svg *)')) {
    const style = getComputedStyle(element);
    if ([style.overflowX, style.overflowY].some(how => how !== 'visible')) cut.push('hides: ' + element.outerHTML);
  }
  return cut;
}"""
# The size of each picture on the page, and how many colours it has.
PICTURES = """async () => Promise.all([...document.images].map(async image => {
  await image.decode();
  const canvas = document.createElement('canvas');
  canvas.width = 200; canvas.height = 200;
  const pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0, 200, 200);
  const colours = new Set(new Uint32Array(pen.getImageData(0, 0, 200, 200).data.buffer));
  const box = image.getBoundingClientRect();
  return [image.naturalWidth, image.naturalHeight, box.width, box.height, colours.size];
}))"""
VIOLATION = """() => new Promise(done => {
  document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
  const image = new Image();
  image.src = 'http://127.0.0.1:9/picture.png';
  document.body.append(image);
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with (
        sync_playwright() as playwright,
        # the sandbox of the browser refuses to run as root, as tests in containers do
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        yield browser


@pytest.fixture
def open_page(browser: Browser, folder_of: FolderOf) -> Iterator[Callable[..., Page]]:
    """What opens the page of a scenario; at the end, it must have said and asked for nothing."""
    said: list[str] = []
    asked: set[str] = set()
    opened: list[str] = []

    def open_(name: str, width: int = 1440, scheme: str = "light") -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        opened.append((folder_of(name) / "report.html").as_uri())
        page.goto(opened[-1])
        return page

    yield open_
    assert said == []
    assert {address for address in asked if not address.startswith("data:")} == set(opened)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_all_can_be_read_at_all_widths(open_page: Callable[..., Page], name: str, width: int):
    page = open_page(name, width)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CUT) == []


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("name", NAMES)
def test_every_picture_is_drawn(open_page: Callable[..., Page], name: str, width: int):
    pictures = open_page(name, width).evaluate(PICTURES)
    assert pictures
    for natural_width, natural_height, box_width, box_height, colours in pictures:
        assert min(natural_width, natural_height, box_height) > 0
        assert box_width >= 600  # wide enough to be read, if need be by scrolling its box
        assert box_width / box_height == pytest.approx(natural_width / natural_height, rel=0.02)
        assert colours > 8


def test_a_picture_made_smaller_can_be_had_at_its_full_size(open_page: Callable[..., Page]):
    page = open_page("flows")
    figure = page.locator("figure", has=page.get_by_label("Full size")).first
    widths = "image => [image.naturalWidth, image.getBoundingClientRect().width]"
    whole, shown = figure.locator("img").evaluate(widths)
    assert shown < whole
    figure.get_by_label("Full size").check()
    whole, shown = figure.locator("img").evaluate(widths)
    assert shown == pytest.approx(whole, abs=0.5)
    assert page.evaluate("document.documentElement.scrollWidth") == 1440


def test_bars_are_as_long_as_their_shares(open_page: Callable[..., Page]):
    page = open_page("training")
    rows = page.evaluate("""() => [...document.querySelectorAll('#breakdown tbody tr')].map(row => {
      const [whole, part] = row.querySelectorAll('rect');
      return [row.children[2].innerText,
              part.getBoundingClientRect().width / whole.getBoundingClientRect().width];
    })""")
    assert len(rows) > 3
    for share, drawn in rows:
        assert 100 * drawn == pytest.approx(float(share.removesuffix("%")), abs=0.06)


def test_the_page_follows_the_reader_into_the_dark(open_page: Callable[..., Page]):
    behind = [
        open_page("flows", scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert behind == ["rgb(255, 255, 255)", "rgb(18, 23, 29)"]


def test_in_print_nothing_is_folded_away(open_page: Callable[..., Page]):
    page = open_page("training")
    scenario = page.locator("pre code")
    assert not scenario.is_visible()
    page.emulate_media(media="print")
    assert scenario.is_visible()
    assert not page.locator("nav").is_visible()


def test_the_policy_forbids_what_is_elsewhere(browser: Browser, folder_of: FolderOf):
    page = browser.new_page()
    page.goto((folder_of("flows") / "report.html").as_uri())
    assert page.evaluate(VIOLATION) == "img-src"


def test_a_name_that_is_a_script_does_not_run(browser: Browser, folder_of: FolderOf):
    page, alerts = browser.new_page(), []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    page.goto((folder_of("flows") / "report.html").as_uri())
    assert page.inner_text("h1") == "<script>alert(1)</script>"
    assert alerts == []
