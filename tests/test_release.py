# SPDX-License-Identifier: Apache-2.0
"""What is published: built, installed outside of the checkout, trained with, and type-checked."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import adamx
from adamx import kernels

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NATIVE = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")

USER = """\
import adamx
import jax
import jax.numpy as jnp

params = {"w": jnp.zeros(4096), "b": jnp.zeros(())}
opt = adamx.adamw(0.01, storage="int8", mask="w")
state = opt.init(params)
x = jax.random.normal(jax.random.key(0), (64, 4096)) / 64


def loss(params: dict[str, jax.Array]) -> jax.Array:
    return jnp.mean((x @ params["w"] + params["b"] - x.sum(1) - 1) ** 2)


losses = [float(loss(params))]
for _ in range(10):
    params, state = adamx.step(opt, params, state, jax.grad(loss)(params))
    losses.append(float(loss(params)))
assert losses == sorted(losses, reverse=True), losses
print(losses[-1].hex(), bool(adamx.kernels.available()), adamx.__version__, adamx.__file__)
"""

# A line, and what each type checker has to reveal or to refuse.
TYPES = {
    "reveal_type(opt)": "GradientTransformationExtraArgs",
    "reveal_type(params)": r"dict\[.*str, .*Array\]",
    "reveal_type(adamx.clip_by_global_norm(1.0))": "GradientTransformationExtraArgs",
    "reveal_type(adamx.health.observe(opt))": "GradientTransformationExtraArgs",
    "reveal_type(adamx.decay.cautious(0.1))": "Decay",
    "reveal_type(adamx.nbytes(opt, params))": "Footprint",
    "reveal_type(adamx.interop.from_torch)": r"weights: .*-> .*Moved",
    "adamx.adamv": "adamv",
    "adamx.health.nothing": "nothing",
    "adamx.interop.nothing": "nothing",
    "adamx.adamw(0.1, storag='int8')": "storag",
}
MYPY = "[mypy]\nstrict = True\n[mypy-optax.*]\nfollow_untyped_imports = True\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the checkout, with rubbish in it."""
    folder = tmp_path_factory.mktemp("source")
    for name in listed():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for rubbish in ("x.py", "runs/task-1/run.jsonl", "adamx/kernels/_native.so", "dist/x.whl"):
        (folder / rubbish).parent.mkdir(parents=True, exist_ok=True)
        (folder / rubbish).write_text("not to be published")
    return folder


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """A folder with the sdist, the wheel made of the sdist, and the pure wheel."""
    dist = tmp_path_factory.mktemp("dist")
    build(source, "--outdir", str(dist), ADAMX_KERNELS="1" if kernels.available() else "0")
    build(source, "--outdir", str(dist), "--wheel", ADAMX_KERNELS="0")
    return dist


@pytest.mark.slow
def test_the_sdist_has_all_that_a_wheel_needs_and_no_rubbish(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        found = {name.partition("/")[2] for name in tar.getnames()} - {"PKG-INFO"}
    assert found <= set(listed())
    assert {name for name in listed() if name.startswith(("adamx/", "tests/"))} <= found
    assert {"hatch_build.py", "LICENSE", "README.md", "CITATION.cff", "CHANGELOG.md"} <= found


@pytest.mark.slow
def test_wheels_hold_the_package_alone_and_say_what_it_is(built):
    pytest.importorskip("twine", reason="needs twine: pip install 'adamx[release]'")
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir()))
    info = f"adamx-{adamx.__version__}.dist-info"
    for path in built.glob("*.whl"):
        pure = path.name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
            about = message_from_bytes(wheel.read(f"{info}/METADATA"))
            assert f"Root-Is-Purelib: {str(pure).lower()}" in wheel.read(f"{info}/WHEEL").decode()
        assert {name.split("/")[0] for name in names} == {"adamx", info}
        assert {"adamx/py.typed", "adamx/kernels/csrc/step.cc"} <= set(names)
        assert ("adamx/kernels/_native.so" in names) is not pure
        assert about["Author"] == "adamx contributors"
        assert about["License-Expression"] == PROJECT["license"] == "Apache-2.0"
        assert set(about.get_all("Provides-Extra") or ()) == set(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_a_wheel_trains_outside_of_the_checkout(built, tmp_path):
    losses = set()
    for kind in (NATIVE, "py3-none-any") if kernels.available() else ("py3-none-any",):
        python = installed(built, kind, tmp_path / kind)
        loss, loops, version, file = run(python, "-c", USER).split()
        assert Path(file).is_relative_to(tmp_path)
        assert (loops, version) == (str(kind == NATIVE), adamx.__version__)
        losses.add(loss)
    assert len(losses) == 1  # a loop in C++ makes the same bits


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["pyright", "mypy"])
def test_type_checkers_know_what_a_user_gets(checker, built, tmp_path):
    pytest.importorskip(checker, reason=f"needs {checker}: pip install 'adamx[dev]'")
    python = installed(built, "py3-none-any", tmp_path / "env")
    (tmp_path / "user.py").write_text(USER + "\n".join(TYPES) + "\n")
    (tmp_path / "mypy.ini").write_text(MYPY)
    flag = {"pyright": "--pythonpath", "mypy": "--python-executable"}[checker]
    command = [sys.executable, "-m", checker, flag, python, "user.py"]
    said = subprocess.run(command, cwd=tmp_path, env=clean(), capture_output=True, text=True).stdout
    lines = [line for line in said.splitlines() if "user.py:" in line]
    for number, (line, expected) in enumerate(TYPES.items(), USER.count("\n") + 1):
        found = next((s for s in lines if f"user.py:{number}:" in s), f"nothing: {said}")
        assert ("error: " in found) is not line.startswith("reveal_type"), found
        assert re.search(expected, found), found
    wrong = [line for line in TYPES if not line.startswith("reveal_type")]
    assert sum("error: " in line for line in lines) == len(wrong), said  # none in `USER`


@pytest.mark.slow
def test_a_failure_to_compile_is_an_error_where_loops_are_asked_for(source, tmp_path):
    with pytest.raises(AssertionError, match="false"):
        build(source, "--wheel", "--outdir", str(tmp_path), ADAMX_KERNELS="1", CXX="false")
    assert not list(tmp_path.iterdir())
    build(source, "--wheel", "--outdir", str(tmp_path), CXX="false")
    (pure,) = tmp_path.glob("*-py3-none-any.whl")
    with zipfile.ZipFile(pure) as wheel:
        assert "false" in wheel.read("adamx/kernels/_native.txt").decode()


def test_the_citation_has_the_licence_of_the_package_and_no_version_of_its_own():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([a-z-]+): *(.*)$", text, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= set(fields)
    assert fields["license"] == PROJECT["license"]
    assert "version" not in fields
    assert "version" in PROJECT["dynamic"]


def listed():
    """The files of the checkout, without those that git ignores."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout by git")
    command = "git ls-files --cached --others --exclude-standard".split()
    names = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    return [name for name in names if (ROOT / name).is_file()]


def clean(**more):
    """The environment without what would find the checkout, or turn the loops on or off."""
    ours = ("PYTHON", "MYPYPATH", "ADAMX")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | more


def run(*command, cwd="/", **env):
    """What a command prints that ends well."""
    done = subprocess.run(command, cwd=cwd, env=clean(**env), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source, *flags, **env):
    """`python -m build`, with the tools of this environment."""
    pytest.importorskip("build", reason="needs build: pip install 'adamx[release]'")
    run(sys.executable, "-m", "build", "--no-isolation", *flags, cwd=source, **env)


def installed(dist, kind, folder):
    """Installs a wheel into a fresh environment, which has JAX and Optax from this one."""
    (wheel,) = dist.glob(f"*-{kind}.whl")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = str(folder / "bin" / "python")
    flags = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *flags, str(wheel))
    home = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    outer = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(home) / "outer.pth").write_text("\n".join(outer))
    return python
