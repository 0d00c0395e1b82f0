"""report.html in a real browser, by pytest -m browser (Debian: chromium, chromium-driver)."""

import base64
import re
import threading
import time

import numpy as np
import pytest
from browser import browser, wait

from tinygan import GAN, data
from tinygan.app import live, page
from tinygan.training import samples, yardstick

pytestmark = pytest.mark.browser

SMALL = dict(width=8, depth=1, batch=16, n_critic=1, steps=70)
HOSTILE = "</script><img src=x onerror=window.hacked=1><b>&amp;\"'.csv"
POINTS = np.random.default_rng(0).gamma(2, size=(60, 5))
SOURCES = {"ring": "ring", "line": data.points(POINTS[:, :1]), "five": data.points(POINTS),
           "plane": data.points(POINTS[:, :2], HOSTILE), "vae": "ring",
           "images": np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)}
KINDS = pytest.mark.parametrize("kind", SOURCES)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Paths of reports, each written when it is asked for."""
    here, made = tmp_path_factory.mktemp("pages"), {}

    def path(kind):
        if kind not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(samples, "SCORED", 100)
                gan = GAN("vae" if kind == "vae" else "wgan-gp", **SMALL).fit(SOURCES[kind])
                made[kind] = here / f"{kind}.html"
                made[kind].write_text(page.page(gan, {"exit": "done", "data": HOSTILE},
                                                yardstick(gan.data_)))
        return made[kind].as_uri()

    return path


@pytest.fixture(scope="module")
def window():
    with browser() as opened:
        yield opened


@pytest.fixture
def tab(window):
    """The window, whose console is quiet before and after."""
    window.log()
    yield window
    assert window.log() == []


PICTURE = "return document.getElementById('picture').toDataURL()"
STATE = ("return [+document.getElementById('scrubber').value, at, run.steps[at], "
         "document.getElementById('told').textContent]")


@KINDS
def test_a_report_draws_its_film_and_curves_without_a_word_in_the_console(tab, pages, kind):
    tab.open(pages(kind))
    wait(lambda: tab.run("return !document.getElementById('film').hidden"))
    pictures = [tab.run(f"go({moment}); " + PICTURE) for moment in (0, 30, 59)]
    assert len(set(pictures)) == 3
    charts, drawn = tab.run("return [run.charts.length, [...document.querySelectorAll("
                            "'#charts svg')].filter(svg => svg.getAttribute('aria-label') && "
                            "svg.querySelector('polyline, rect')).length]")
    assert charts == drawn > 0
    assert "NaN" not in tab.run("return document.getElementById('charts').innerHTML")


def test_the_page_reads_the_numbers_that_were_written(tab, pages):
    tab.open(pages("ring"))
    total, first, cells = tab.run("return [numbers.points.reduce((a, b) => a + b, 0), "
                                  "[...numbers.points.slice(0, 4)], numbers.scores.length]")
    content = tab.run("return [run.points, run.scores]")
    points = np.frombuffer(base64.b64decode(content[0]), "<i2")
    assert total == points.astype(int).sum() and first == points[:4].tolist()
    assert cells == len(base64.b64decode(content[1]))


def test_the_scrubber_moves_picture_words_row_and_cursors(tab, pages):
    tab.open(pages("ring"))
    places = []
    for moment in (0, 20, 59):
        tab.run("const s = document.getElementById('scrubber'); s.value = arguments[0]; "
                "s.dispatchEvent(new Event('input'))", moment)
        value, at, step, told = tab.run(STATE)
        assert value == at == moment and told.startswith(f"Step {step:,} of 70: ")
        assert told == tab.run("return document.getElementById('scrubber').ariaValueText")
        assert told == tab.run("return document.getElementById('picture').ariaLabel")
        row = tab.run("return Object.fromEntries([...document.querySelectorAll('#row tr')].map("
                      "r => [...r.cells].map(c => c.textContent)))")
        assert row["step"] == (str(step) if step else "–")
        places.append(tab.run("return [...document.querySelectorAll('.cursor')].map("
                              "c => +c.getAttribute('x1'))"))
    assert (np.diff(places, axis=0) > 0).all()


def test_the_step_is_shown_with_all_its_digits(tab, pages):
    tab.open(pages("ring"))
    row = tab.run("for (const name of ['steps']) run[name] = run[name].map(s => 1001 * s); "
                  "run.log.step = run.log.step.map(s => 1001 * s); go(59); "
                  "return document.getElementById('row').rows[0].textContent")
    assert row == "step70,070"


def test_ticks_are_told_apart_and_say_where_they_are(tab, pages):
    """Labels and what the axis says it leaves out add up to the ticks, for frames near and far."""
    tab.open(pages("ring"))
    ends = [(-1.8, 1.8), (1986.7, 2014.3), (1998, 2004), (999.9975, 1000.003), (1e6, 1e6 + 0.004),
            (-1e12, 3e12), (1e-30, 4e-30), (-3e300, 2e300), (-1e6 - 3, -1e6), (0.1001, 0.1002),
            (1e16, 1e16 + 2), (1e16, 1e16), (5e15, 5e15 + 1), (0, 1e-320)]
    found = tab.run("return arguments[0].map(([low, high]) => "
                    "labelled({low, high, label: 'x1 [data units]'}))", ends)
    for (low, high), (ticks, label) in zip(ends, found):
        less = re.fullmatch(r"x1( − (\S+))? \[data units\]", label)[2] or "0"
        values = [float(text.replace("−", "-")) + float(less) for text, _ in ticks]
        assert len(ticks) < 14 and all(len(text) < 10 for text, _ in ticks)
        if high - low > 1e-9 * abs(high) > 1e-310:
            assert len({text for text, _ in ticks}) == len(ticks) >= 3
            np.testing.assert_allclose(values, [t for _, t in ticks], rtol=0,
                                       atol=0.011 * (high - low))


@pytest.mark.parametrize("kind, count", [("ring", 5), ("five", 4), ("line", 3), ("vae", 3)])
def test_every_layer_can_be_taken_away_and_brought_back(tab, pages, kind, count):
    tab.open(pages(kind))
    names = tab.run("return [...document.querySelectorAll('#layers input')].map(i => i.id)")
    assert len(names) == count
    whole = tab.run("go(40); " + PICTURE)
    seen = {whole}
    for name in names:
        seen.add(tab.run("document.getElementById(arguments[0]).click(); " + PICTURE, name))
        assert tab.run("document.getElementById(arguments[0]).click(); " + PICTURE, name) == whole
    assert len(seen) == count + 1


def test_the_keyboard_alone_is_enough(tab, pages):
    tab.open(pages("ring"))
    focus = "return document.activeElement.id || document.activeElement.tagName"
    tab.press("Tab")
    assert tab.run(focus) == "scrubber"
    tab.press("Home")
    assert tab.run(STATE)[1] == 0
    tab.press("Right", "Right", "Left")
    assert tab.run(STATE)[:2] == [1, 1]
    tab.press("Space")  # plays from the scrubber
    wait(lambda: tab.run(STATE)[1] > 5)
    tab.press("Space")
    at = tab.run(STATE)[1]
    time.sleep(0.4)
    assert tab.run(STATE)[1] == at < 59
    tab.press("Tab")
    assert tab.run(focus) == "play"
    tab.press("Enter")
    wait(lambda: tab.run("return document.getElementById('play').textContent") == "Pause")
    tab.press("Enter")
    tab.press("Tab")
    assert tab.run(focus) == "speed"
    tab.press("Tab")
    name = tab.run(focus)
    assert name == "layer-real"
    before = tab.run(PICTURE)
    tab.press("Space")  # a checkbox keeps its own key
    assert tab.run("return document.getElementById('layer-real').checked") is False
    assert tab.run(PICTURE) != before
    tab.run("document.activeElement.blur()")
    tab.press("End", "Left")  # and anywhere else on the page
    assert tab.run(STATE)[1] == 58


def test_a_screen_reader_meets_names_and_values(tab, pages):
    tab.open(pages("ring"))
    nodes = [(node["role"]["value"], node.get("name", {}).get("value", ""))
             for node in tab.command("Accessibility.getFullAXTree")["nodes"] if "role" in node]
    named = [name for role, name in nodes
             if role in ("slider", "image", "button", "checkbox", "combobox")]
    assert len(named) > 15 and all(named)
    assert ("slider", "Moment of the training") in nodes and ("button", "Play") in nodes
    assert any(role == "image" and name.startswith("Losses. critic: first") for role, name in nodes)
    headings = [name for role, name in nodes if role == "heading"]
    assert headings[1] == "What is good, what is not, what to try next" and "Film" in headings


def test_a_hostile_name_stays_text(tab, pages):
    tab.open(pages("plane"))
    assert HOSTILE in tab.run("return document.querySelector('h1').textContent")
    assert HOSTILE in tab.run("return document.getElementById('about').textContent")
    assert tab.run("return [window.hacked ?? null, document.querySelectorAll('h1 *, dd *').length]"
                   ) == [None, 0]


def test_a_curve_tells_what_is_under_the_pointer_and_takes_the_film_there(tab, pages):
    tab.open(pages("ring"))
    told = tab.run("""
        const svg = document.querySelector('#charts svg'), box = svg.getBoundingClientRect();
        const at = {clientX: box.left + box.width / 2, clientY: box.top + 50, bubbles: true};
        const words = svg.parentNode.querySelector('.told'), seen = [words.textContent];
        svg.dispatchEvent(new PointerEvent('pointermove', at));
        seen.push(words.textContent);
        svg.dispatchEvent(new PointerEvent('pointerleave', at));
        seen.push(words.textContent);
        svg.dispatchEvent(new MouseEvent('click', at));
        return [...seen, +document.getElementById('scrubber').value]""")
    assert told[0] == told[2] != told[1] and "critic" in told[1] and "generator" in told[1]
    assert 25 < int(told[1].split()[1].rstrip(":")) < 45 and 20 < told[3] < 45


def test_it_draws_ten_times_a_second(tab, pages):
    """With all layers on, in software; and a film at normal speed lasts six seconds."""
    tab.open(pages("ring"))
    took = tab.run("""
        document.getElementById('layer-manifold').click();
        return Array.from({length: 20}, (_, i) => {
            const start = performance.now();
            go(3 * i);
            return performance.now() - start; });""")
    assert np.median(took) < 100
    tab.run("document.getElementById('speed').value = 4; go(0); play(true)")
    started = time.monotonic()
    wait(lambda: tab.run(STATE)[1] == 59 and not tab.run("return timer"))
    assert time.monotonic() - started < 5


def test_the_walk_is_dragged(tab, pages):
    tab.open(pages("images"))
    pictures = tab.run("""
        const canvas = document.querySelector('#walk canvas'), seen = [canvas.toDataURL()];
        const box = canvas.getBoundingClientRect(), slider = document.querySelector('#walk input');
        canvas.dispatchEvent(new PointerEvent('pointermove', {buttons: 1,
            clientX: box.left + box.width / 2, clientY: box.top + 5}));
        seen.push(canvas.toDataURL());
        const dragged = slider.value;
        slider.value = 50;
        slider.dispatchEvent(new Event('input'));
        return [...seen, canvas.toDataURL(), dragged, slider.ariaValueText]""")
    assert len(set(pictures[:3])) == 3 and pictures[3] == "30" and pictures[4] == "place 51 of 60"
    assert tab.run("return document.querySelector('#nearest img').naturalWidth") > 100


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["ring", "images"])
def test_it_fits_a_phone_in_light_and_dark(pages, kind, dark):
    with browser(size=(320, 640), dark=dark) as phone:
        phone.open(pages(kind))
        wide, ground, text = phone.run(
            "const s = getComputedStyle(document.body); return [document.documentElement"
            ".scrollWidth, s.backgroundColor, s.color]")
        assert wide <= 320
        light = [sum(map(int, color[4:-1].split(", "))) for color in (ground, text)]
        assert (light[0] < light[1]) == dark and abs(light[0] - light[1]) > 500
        phone.run("go(30)")
        assert phone.log() == []


def test_a_dark_page_is_printed_as_a_light_one(pages):
    """Its canvases too, which are painted anew, and back."""
    with browser(dark=True) as dark:
        dark.open(pages("ring"))
        dark.run("window.seen = []; const tell = () => seen.push([matchMedia('print').matches, "
                 "colors.text, color('text')]); tell(); "
                 "matchMedia('print').addEventListener('change', tell)")
        dark.command("Page.printToPDF")
        (_, *before), (printing, *during), (after, *end) = dark.run("return seen")
        assert printing and not after and during == ["#1d1d1f"] * 2
        assert before == end == ["#ececf0"] * 2


@pytest.mark.thorough  # for ten seconds a run trains, and is watched
def test_a_growing_report_renews_itself_where_the_reader_stands(tab, monkeypatch):
    monkeypatch.setattr(samples, "SCORED", 100)
    gan = GAN(**SMALL)
    run, shown = gan.prepare("ring"), []

    def render():
        if isinstance(shown[-1], Exception):
            raise shown[-1]
        return shown[-1]

    def grow(until):
        for row in run.train():
            run.stop = row["step"] == until
        run.stop = 0
        shown.append(page.page(gan, {"exit": None}, {}, live=until < 70))

    grow(10)
    with live.server(render) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab.open(f"http://127.0.0.1:{server.server_port}/")
        assert tab.run(STATE)[2] == 10
        tab.run("document.getElementById('layer-manifold').click()")
        grow(20)
        wait(lambda: tab.run(STATE)[2] == 20)  # at the end, and stays there
        assert tab.run("return document.getElementById('layer-manifold').checked")
        tab.run("go(3)")
        lead = "return document.getElementById('lead').textContent"
        shown.append(shown[-1].replace("in training", "at its last step"))  # words alone
        wait(lambda: "at its last step" in tab.run(lead))
        shown.append(OSError("no room"))
        wait(lambda: tab.run(lead) == "no room")  # and asks again
        assert "503" in tab.log()[0]
        grow(70)
        wait(lambda: tab.run("return run.steps.length") == 60)
        assert tab.run(STATE)[1] == 3 and "step 70" in tab.run(
            "return document.getElementById('lead').textContent")
        server.shutdown()
    time.sleep(2.5)  # the page is the last one, and asks no more
