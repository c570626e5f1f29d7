# SPDX-License-Identifier: Apache-2.0
"""Pictures show what the history says, and the page needs nothing beside it."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from adamx import health
from adamx.cli import main
from adamx.cli.report.side_by_side import picture
from adamx.health.report.plot import marks, series
from tests.cli.commands import done, table

LEAVES = ("embed", "layer/kernel", "layer/<bias>")


def rows(steps=120):
    found = []
    for i in range(1, steps + 1):
        row = {"step": 10 * i, "time": 1000.0 + i, "loss": 3 / i, "validation loss": None}
        row |= {"grad_norm": 2 / i, "update_norm": 1e-2, "param_norm": 10.0, "update_ratio": 1e-3}
        row |= {"skipped": i // 50, "spikes": 0, "clipped": i // 30, "lost": 0.0, "idle": 0.01}
        row |= {f"grad_rms/{leaf}": 10.0**-k / i for k, leaf in enumerate(LEAVES)}
        row |= {f"lost/{leaf}": 0.42 * k for k, leaf in enumerate(LEAVES[:2])}
        found.append(row)
    found[60]["grad_rms/embed"] = None
    found[61]["grad_rms/embed"] = 0.0
    found[-1]["validation loss"] = 0.5
    return found


def test_a_panel_for_each_kind_of_figure_with_the_values_of_the_history():
    figure = health.plot(rows(), "a run")
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[:4] == ["loss", "norm", "update / parameter", "share"]
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    np.testing.assert_allclose(lines["grad norm"].get_ydata(), [r["grad_norm"] for r in rows()])
    np.testing.assert_allclose(lines["idle"].get_xdata(), [r["step"] for r in rows()])
    assert "lost" not in lines  # nothing ever is
    assert list(lines["skipped (2)"].get_xdata()) == [500, 1000]
    assert "spikes" not in " ".join(lines)
    heat = figure.axes[4]
    assert [tick.get_text() for tick in heat.get_yticklabels()] == list(LEAVES)
    decades = heat.collections[0].get_array().reshape(len(LEAVES), -1)
    sizes = np.array([[1 / i for i in range(1, 121)]])
    # The median of an even number of decades is not quite that of the sizes.
    np.testing.assert_allclose(decades[1], np.log10(sizes / np.median(sizes))[0], atol=1e-4)
    assert np.ma.getmaskarray(decades)[0, 60] or math.isnan(decades[0, 60])
    assert decades[0, 61] < -2


def test_what_the_history_lacks_is_left_out():
    few = [{"step": i, "loss": 1.0} for i in range(3)]
    assert [axes.get_ylabel() for axes in health.plot(few).axes] == ["loss"]
    with pytest.raises(ValueError, match="`history` is empty"):
        health.plot([])
    with pytest.raises(ValueError, match="nothing to plot, only step, speed"):
        health.plot([{"step": 1, "speed": 3.0}])
    bare = [{"step": i, "loss": 1.0, "lost": 0.0, "grad_rms/a": None} for i in range(3)]
    assert [axes.get_ylabel() for axes in health.plot(bare).axes] == ["loss"]
    health.plot([{"step": 1, "grad_norm": 0.0, "grad_rms/a": None, "loss": None}])


def diverged(steps=40):
    """A run that is NaN from step 21 on."""
    found = []
    for i in range(1, steps + 1):
        loss = 1 / i if i <= 20 else math.nan
        norms = dict.fromkeys(("grad_norm", "grad_norm/a", "update_norm", "grad_rms/a"), loss)
        found.append({"step": i, "loss": loss} | norms)
    return found


def test_a_run_that_diverged_is_red_in_every_panel():
    figure = health.plot(diverged())
    assert len(figure.axes) == 4  # loss, norms, leaves, and their colour bar
    for axes in figure.axes[:3]:
        (span,) = axes.patches
        assert (span.get_x(), span.get_x() + span.get_width()) == (21, 40)
    assert not any(axes.patches for axes in health.plot(diverged(20)).axes[:3])
    nothing = health.plot([{"step": i, "loss": math.nan} for i in (1, 2)])
    assert [len(axes.patches) for axes in nothing.axes] == [1]


def test_a_page_says_first_and_in_red_that_a_run_is_not_finite():
    text = health.page(diverged())
    first = text[text.index('<p class="finding') :]
    assert first.startswith('<p class="finding broken"><b>not finite since step 21, first in leaf')
    assert '<td>last loss</td><td class="bad">NaN</td>' in text
    assert "<td>best loss</td><td>0.05</td>" in text


def test_losses_over_decades_are_on_a_log_scale():
    def scale(losses):
        history = [{"step": i, "loss": x} for i, x in enumerate(losses)]
        one, beside = health.plot(history).axes[0], picture({"a": history}).axes[0]
        return one.get_yscale(), beside.get_yscale()

    assert scale(np.geomspace(2, 1e-3, 50)) == ("log", "log")
    assert scale(np.linspace(2, 1, 50)) == ("linear", "linear")
    assert scale([0.0, *np.geomspace(2, 1e-3, 50)])[0] == "linear"


def test_the_loss_at_the_end_is_in_the_picture_whatever_it_is():
    history = [{"step": i, "loss": 1.0 if i < 998 else 20.0} for i in range(1000)]
    assert health.plot(history[:60] + history[-2:]).axes[0].get_ylim()[1] > 20


def test_a_page_counts_clips_once_and_shows_no_negative_noise_scale():
    history = [
        {"step": i, "loss": 1.0, "clipped": 7 * i, "noise_scale": -2.0, "noise_scale/a": math.inf}
        for i in range(1, 9)
    ]
    text = health.page(history)
    assert "<td>clipped</td><td>56</td>" in text
    assert "clipped (56)" in text
    assert "-2" not in re.sub("<svg.*</svg>", "", text, flags=re.DOTALL)
    assert "<td>–</td>" in text


def test_what_is_unknown_is_a_dash_on_the_page_and_a_norm_that_is_not_finite_is_not():
    history = [{"step": i, "loss": 1.0, "cosine": math.nan, "grad_rms": math.nan} for i in (1, 2)]
    text = health.page(history)
    assert '<td class="bad">NaN</td><td>–</td>' in text


def test_a_page_is_made_for_a_phone_too():
    text = health.page(rows())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert '<div class="wide"><svg' in text  # it scrolls, and is not made smaller


def test_a_run_that_is_too_short_is_not_called_well():
    short = health.page([{"step": i, "loss": 1 / i} for i in range(1, 4)])
    assert "Too short to judge: 3 of the 5 observations" in short
    assert "Nothing that the doctor knows of is wrong" not in short


def test_marks_are_where_counts_have_grown():
    history = [{"step": 1, "skipped": 2}, {"step": 2}, {"step": 3, "skipped": 2}]
    history += [{"step": 4, "skipped": None}, {"step": 5, "skipped": 3, "rewinds": 0}]
    assert marks(history) == {"skipped": [1, 5]}
    assert [list(x) for x in series(history, "skipped")] == [[1, 3, 5], [2, 2, 3]]


class Tags(HTMLParser):
    """The tags of a page, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.count = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.count += 1
        if tag not in ("meta", "br"):
            self.open.append(tag)
        given = dict(attributes)
        links = [given.get(name) or "" for name in ("src", "href", "xlink:href")]
        self.loads += [link for link in links if link and not link.startswith(("#", "data:"))]

    def handle_startendtag(self, tag, attributes):
        self.count += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing():
    text = health.page(rows(), "5 < 6 & more")
    tags = Tags(text)
    assert tags.open == []
    assert tags.count > 200
    assert tags.loads == []
    assert "5 &lt; 6 &amp; more" in text
    assert "layer/&lt;bias&gt;" in text
    assert "42% of updates are lost to rounding" in text
    assert "steps 10 to 1,200, 120 rows, 119 s" in text
    assert re.search(r"last validation loss</td><td>0.5</td>", text)
    well = [{"step": i, "loss": 1 / i} for i in range(1, 9)]
    assert "Nothing that the doctor knows of is wrong." in health.page(well)


def test_report_writes_the_page_and_says_what_is_wrong(tmp_path):
    with health.JsonLines(tmp_path / "run.jsonl") as log:
        for row in rows():
            figures = {k: v for k, v in row.items() if v is not None}
            log.write(figures.pop("step"), figures)
    out = done(f"report {tmp_path}")
    assert "`layer/kernel`: 42% of updates are lost to rounding" in out
    assert f"written: {tmp_path / 'report.html'}" in out
    text = (tmp_path / "report.html").read_text()
    assert f"<h1>{tmp_path.name}</h1>" in text
    done(f"report {tmp_path / 'run.jsonl'} --out {tmp_path / 'x.html'} --title Mine")
    assert "<h1>Mine</h1>" in (tmp_path / "x.html").read_text()


def test_several_runs_are_a_table_and_a_picture_of_their_losses(tmp_path):
    for name, scale in (("one", 1.0), ("two", 0.5)):
        (tmp_path / name).mkdir()
        with health.JsonLines(tmp_path / name / "run.jsonl") as log:
            for i in range(1, 91):
                told = {"validation loss": scale * (2 - i / 90)} if i % 30 == 0 else {}
                log.write(i, {"loss": scale * 90 / i} | told)
    one, two = tmp_path / "one", tmp_path / "two" / "run.jsonl"
    found = table(done(f"report {one} {two} --out {tmp_path / 'both.svg'}"), "last loss")
    assert found["one"] == ["90", "1.006", "1", "1"]  # the median of the last two
    assert found["two"] == ["90", "0.5028", "0.5", "0.5"]
    assert "<svg" in (tmp_path / "both.svg").read_text()
    figure = picture({"one": health.history(one / "run.jsonl")})
    whole, last = figure.axes
    np.testing.assert_allclose(whole.get_lines()[0].get_ydata()[1:-1], 90 / np.arange(2, 90))
    np.testing.assert_allclose(last.get_lines()[0].get_xdata(), [30, 60, 90])
    np.testing.assert_allclose(last.get_lines()[0].get_ydata(), [2 - 1 / 3, 2 - 2 / 3, 1])
    unseen = picture({"one": [{"step": i, "loss": 1.0} for i in range(1, 10)]})
    np.testing.assert_allclose(unseen.axes[1].get_lines()[0].get_xdata(), range(3, 10))


def test_a_run_that_diverged_is_seen_beside_others(tmp_path):
    for name, history in (("bad", diverged()), ("good", diverged(20))):
        with health.JsonLines(tmp_path / f"{name}.jsonl") as log:
            for row in history:
                log.write(row.pop("step"), row)
    files = f"{tmp_path / 'bad.jsonl'} {tmp_path / 'good.jsonl'}"
    found = table(done(f"report {files} --out {tmp_path / 'both.png'}"), "last loss")
    assert found["bad"] == ["40", "not finite since step 21"]
    assert found["good"][:2] == ["20", "0.05132"]
    figure = picture({"bad": diverged()})
    whole = figure.axes[0]
    assert whole.get_legend().get_texts()[0].get_text() == "bad, not finite since step 21"
    (cross,) = (line for line in whole.get_lines() if line.get_marker() == "X")
    assert cross.get_xdata() == [19]  # of the running median
    assert len(picture({"bad": diverged()[20:]}).axes[0].get_lines()) == 2


def test_report_refuses_in_one_sentence(tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("not json\n")
    good, odd, binary = (tmp_path / name for name in ("good.jsonl", "odd.jsonl", "binary.png"))
    odd.write_text('5\n{"step": null}\n{"step": "1"}\n')
    binary.write_bytes(b"\x89PNG\xff\xfe")
    good.write_text('{"step": 1, "loss": 2.0}\n')
    for line, said in (
        (f"report {tmp_path / 'none.jsonl'}", "none.jsonl: there is no such file"),
        (f"report {empty}", "no line has a step; is this a log of figures?"),
        (f"report {tmp_path}", "run.jsonl: there is no such file"),
        (f"report {good} {good} --out x.html", "--out must end in .png, .svg, .pdf, got 'x.html'"),
        (f"report {good} --out {tmp_path / 'none/x.html'}", "No such file or directory"),
        (f"report {good} --out {tmp_path / 'x.png'}", "one run makes a page, as .html"),
        (f"report {odd}", "no line has a step; is this a log of figures?"),
        (f"report {binary}", "binary.png: not a log of figures"),
    ):
        assert main(line.split()) == 2
        assert said in (complaint := capsys.readouterr().err)
        assert complaint.count("\n") == 1
