# SPDX-License-Identifier: Apache-2.0
"""The settings of a run, each declared once: flag, default, help, how `--resume` treats it.

The parser, `config.json` and the check of `--resume` are derived from `Settings`.
"""

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

from adamx import landing
from adamx.cli import folder, names
from adamx.cli.devices import HOWS
from adamx.cli.flags import UsageError, non_negative, whole
from adamx.cli.tasks import TASK_HELP
from adamx.cli.train.kept import check

DTYPES = ("float32", "bfloat16", "float16")
SCHEDULES = ("constant", "cosine", "linear")

# What `--resume` makes of a setting: it has to stay as it was; it stays unless another value is
# given; or it belongs to one call of the command and is not kept.
Resume = Literal["fixed", "kept", "of the call"]


def _setting(group: str, default: Any, help: str, resume: Resume = "fixed", **flag: Any) -> Any:
    if default not in (None, False) and "(default" not in help:
        help = f"{help} (default: {default})"
    if isinstance(default, bool):
        flag.setdefault("action", "store_true")
    elif "choices" not in flag:
        flag.setdefault("metavar", "N")
    metadata = {"group": group, "resume": resume, "flag": {"help": help, **flag}}
    return dataclasses.field(default=default, metadata=metadata)


_task = functools.partial(_setting, "")
_task_kept = functools.partial(_setting, "", resume="kept")
_optimizer = functools.partial(_setting, "optimizer")
_guard = functools.partial(_setting, "guards")
_devices = functools.partial(_setting, "devices", resume="kept")
_process = functools.partial(_setting, "devices", resume="of the call")
_kept = functools.partial(_setting, "what is kept", resume="kept")
_file = functools.partial(_setting, "what is kept", resume="of the call")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every setting of `train`; None means that the task decides."""

    task: str = _task("source", TASK_HELP.format(", quadratic", "source"), metavar="NAME")
    data: str | None = _task(None, "the task's data; each has its own by default", metavar="DIR")
    batch_size: int | None = _task(None, "examples in a step (default: the task's)", type=whole(1))
    steps: int | None = _task_kept(None, "how many steps (default: the task's)", type=whole(1))
    dtype: str = _task("float32", "the dtype of the parameters", choices=DTYPES)
    seed: int = _task(
        0, "seeds data, parameters and batches (default: 0)", type=whole(0, 2**32 - 1)
    )
    compare: str = _task_kept(
        "none", "what trains beside ours on the same batches", choices=("optax", "none")
    )
    recipe: str = _optimizer(
        "adamw", f"one of {', '.join(names.RECIPES)}", choices=names.RECIPES, metavar="NAME"
    )
    storage: str = _optimizer(
        "float32",
        "how our moments are stored between steps; Optax's stay in float32",
        choices=names.STORAGES,
    )
    landing: str = _optimizer(
        "nearest",
        "how our steps are written into half-precision parameters",
        choices=tuple(landing.NAMED),
    )
    learning_rate: float | None = _optimizer(
        None, "the peak learning rate (default: the task's)", type=non_negative, metavar="X"
    )
    schedule: str | None = _optimizer(
        None, "how the learning rate changes (default: the task's)", choices=SCHEDULES
    )
    weight_decay: float | None = _optimizer(
        None, "the strength of decay (default: the task's, or none)", type=non_negative, metavar="X"
    )
    clip: float | None = _optimizer(
        None,
        "the largest global norm of gradients; 0 for none (default: the task's)",
        type=non_negative,
        metavar="X",
    )
    describe: bool = _optimizer(False, "print a table of leaves and end", resume="of the call")
    stop_at: float | None = _task_kept(
        None, "end at a validation loss of X or less", type=non_negative, metavar="X"
    )
    stop_on_plateau: int | None = _task_kept(
        None,
        "end when the validation loss has not fallen for N looks, of twenty in a run",
        type=whole(1),
    )
    stop_on_divergence: bool = _task_kept(False, "end when the validation loss has diverged")
    skip_nonfinite: bool = _guard(False, "skip steps that are not finite")
    skip_spikes: bool = _guard(False, "skip steps whose gradient is far larger than usual")
    loss_scale: bool = _guard(False, "scale the loss, for float16")
    rewind: bool = _guard(False, "go back to good parameters when the loss has diverged")
    watch: int = _guard(
        20, "log figures of each leaf at every N-th step; 0 for never", type=whole(0)
    )
    devices: int | None = _devices(
        None,
        "how many devices of this process; virtual ones on a CPU (default: all there are)",
        type=whole(1),
    )
    how: str = _devices(
        "jit",
        "how batches are spread over devices; mesh is another name of jit",
        type=lambda way: "jit" if way == "mesh" else way,
        choices=HOWS,
    )
    zero: bool = _devices(
        False, "split moments over the devices too (ZeRO-1)", action=argparse.BooleanOptionalAction
    )
    distributed: bool = _process(
        False,
        "be one of several processes, as the cluster's environment or the next three flags say",
    )
    coordinator: str | None = _process(
        None, "the address of the first process", metavar="HOST:PORT"
    )
    processes: int | None = _process(None, "how many processes there are", type=whole(1))
    process: int | None = _process(None, "which one this is, from 0", type=whole(0), metavar="I")
    timeout: int = _process(60, "seconds to wait for other processes", type=whole(1), metavar="S")
    run: str | None = _file(
        None, "the run's folder (default: the next free runs/TASK-N)", metavar="DIR"
    )
    save_every: int = _kept(
        100,
        "steps between checkpoints; the last step is saved too, none while the loss is NaN",
        type=whole(1),
    )
    resume: bool = _file(
        False, "go on from the latest checkpoint in --run (default: the last runs/TASK-N)"
    )
    step: int | None = _file(None, "resume from step N; deletes later checkpoints", type=whole(1))
    export: str | None = _kept(
        None,
        "at the end write step, model and some batches to a file for `run-exported`",
        metavar="FILE",
    )


FIELDS = {f.name: f for f in dataclasses.fields(Settings)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares a flag for each setting; a flag that is not given parses to None."""
    groups = {"": parser}
    for name, field in FIELDS.items():
        group = field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)  # pyright: ignore
        flag = dict(field.metadata["flag"], default=None)
        groups[group].add_argument(_flag(name), **flag)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The flags on the command line; an existing data folder as an absolute path."""
    found = {k: v for k, v in vars(args).items() if k in FIELDS and v is not None}
    if "data" in found and Path(found["data"]).exists():
        found["data"] = str(Path(found["data"]).resolve())
    return found


def settled(told: dict[str, Any]) -> Settings:
    """All settings: those given, else those kept by the resumed run, else the defaults."""
    found = Settings(**told)
    if not found.resume:
        if found.run and folder.settings(Path(found.run)):
            raise UsageError(
                f"{found.run} has a run in it: add --resume to go on with it, or take another "
                "folder"
            )
        return found
    if found.compare != "none":
        raise UsageError("--resume goes on with our run only: add --compare none")
    root = Path(found.run) if found.run else folder.latest(found.task)
    kept = folder.settings(root)
    if not kept:
        raise UsageError(f"--resume: there is no run in {root}")
    if kept.get("compare", "none") != "none":
        raise UsageError(f"--resume: {root} has a comparison, of which nothing is saved")
    for name, field in FIELDS.items():
        is_fixed = field.metadata["resume"] == "fixed"
        if is_fixed and name in told and name in kept and told[name] != kept[name]:
            if kept[name] is None or kept[name] is False:
                raise UsageError(f"{root}: the run was begun without {_flag(name)}")
            raise UsageError(
                f"{root}: the run was begun with {_flag(name)} {kept[name]}, not {told[name]}"
            )
    known: dict[str, Any] = check({k: v for k, v in kept.items() if k in FIELDS}, FIELDS, root)
    return Settings(**(known | told | dict[str, Any](run=str(root))))


def check_data(settings: Settings, title: str) -> None:
    """Raises `UsageError` if the task's title, which has its sizes, is not the resumed run's."""
    before = folder.settings(Path(settings.run or "")).get("title", title)
    if settings.resume and before != title:
        raise UsageError(
            f"{settings.run}: these are not the data that the run was begun with: {before}; now "
            f"{title}"
        )


def to_keep(settings: Settings, **resolved: Any) -> dict[str, Any]:
    """The contents of `config.json`; `resolved` are the values that the task decided."""
    names = [name for name, f in FIELDS.items() if f.metadata["resume"] != "of the call"]
    return {name: getattr(settings, name) for name in names} | resolved


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
