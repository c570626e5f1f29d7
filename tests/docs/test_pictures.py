# SPDX-License-Identifier: Apache-2.0
"""The pictures are those that their scripts draw, from figures that stand in the pages."""

import importlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from docs.pictures import landings, rates
from docs.pictures.drawing import HERE, rows
from notebooks.small_states.workloads import WORKLOADS
from tests.docs.reader import DOCS

pytest.importorskip("matplotlib", reason='needs pip install -e ".[plot]"')

SCRIPTS = ("bytes", "curves", "family", "landings", "rates", "roofline", "step")


def words(path):
    return re.findall(r"<text[^>]*>([^<]*)<", path.read_text(encoding="utf-8"))


def bars(path):
    """How long the paths of a picture are: data that moved make others."""
    return len(re.findall(r"<path", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_picture_is_what_its_script_draws(name, tmp_path):
    importlib.import_module(f"docs.pictures.{name}").picture(tmp_path)
    made = sorted(tmp_path.iterdir())
    assert [path.name for path in made] == [f"{name}-dark.svg", f"{name}-light.svg"]
    for path in made:
        assert words(path) == words(HERE / path.name)
        assert bars(path) == bars(HERE / path.name)


def test_bytes_are_those_of_the_page():
    page = (DOCS / "beside_others.md").read_text(encoding="utf-8")
    totals = set(re.findall(r"\| \**([\d.]+)\** \| [a-z]", page))
    for row in rows(HERE / "bytes.csv"):
        parts = [float(x) for key, x in row.items() if key != "setup"]
        if "adamx" in row["setup"]:
            continue  # the next test
        assert f"{sum(parts):.4g}" in totals, row["setup"]


def test_our_bytes_are_counted():
    params = {"kernel": jnp.zeros((8, 16), jnp.bfloat16)}
    for row in rows(HERE / "bytes.csv"):
        if not row["setup"].startswith("adamx"):
            continue
        _, storage, landing = row["setup"].split(", ")
        found = adamx.nbytes(adamx.adamw(1e-3, storage=storage, landing=landing), params)
        each = found.per_parameter
        got = (each.parameters, each.gradients, each.moments, each.landing)
        assert got == tuple(float(row[x]) for x in ("weights", "gradients", "moments", "remainder"))


def test_times_are_those_of_the_page():
    page = (DOCS / "ideas/speed.md").read_text(encoding="utf-8")
    for row in (row for row in rows(HERE / "roofline.csv") if row["target"] == "cpu"):
        assert f"| {float(row['time']):.2f} (" in page or row["time"] == "1.00", row
    line = r"^\| [^|]+ \| (\d+) \| [\d.]+[^|]* \| ([\d.]+)[^|]* \| ([\d.]+)[^|]* \|$"
    told = [list(map(float, x)) for x in re.findall(line, page, re.MULTILINE)]
    assert len(told) == 9
    for target, time in {"h100": lambda x: 1 / x[1], "v5e": lambda x: x[2] / told[0][2]}.items():
        drawn = [row for row in rows(HERE / "roofline.csv") if row["target"] == target]
        for row in drawn:
            got = float(row["time"]), float(row["memory"])
            assert any(np.allclose(got, (time(x), x[0] / told[0][0]), atol=2e-3) for x in told), row


def test_losses_are_those_of_the_page():
    page = (DOCS / "ideas/bfloat16_parameters.md").read_text(encoding="utf-8")
    for workload, digits in {"transformer": 3, "mlp": 4}.items():
        for losses in landings.losses(workload).values():
            mean, spread = np.mean(losses), np.std(losses, ddof=1)
            assert f"{mean:.{digits}f} ± {spread:.{digits}f}" in page


def test_curves_end_where_the_study_ended():
    studied = rates.losses()
    for row in rows(HERE / "curves.csv"):
        if int(row["step"]) == WORKLOADS[row["workload"]].steps:
            finals = studied[row["workload"], row["format"]][float(row["rate"])]
            # The same program on another machine: a last bit grows over a thousand steps.
            assert min(finals) * 0.9 < float(row["val_loss"]) < max(finals) * 1.1, row
