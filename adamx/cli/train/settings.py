# SPDX-License-Identifier: Apache-2.0
"""The settings of a run: what is given, else what the run was begun with, else the defaults."""

import argparse
from pathlib import Path
from typing import Any

from adamx.cli import folder
from adamx.cli.flags import UsageError

# What a run that is gone on with has to keep; what it keeps unless something else is given.
FIXED = (
    "task data seed dtype recipe schedule learning_rate weight_decay clip batch_size watch "
    "storage landing skip_nonfinite skip_spikes loss_scale rewind"
).split()
LOOSE = "steps save_every devices how zero export".split()


def tell_given(parser: argparse.ArgumentParser) -> None:
    """Has the parser leave None where nothing is given; the defaults lie in `args.defaults`."""
    defaults = vars(parser.parse_args([]))
    parser.set_defaults(**dict.fromkeys(defaults), defaults=defaults)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The flags on the command line; a folder of data by its whole path."""
    found = {k: v for k, v in vars(args).items() if k in args.defaults and v is not None}
    if "data" in found and Path(found["data"]).exists():
        found["data"] = str(Path(found["data"]).resolve())
    return found


def settled(args: argparse.Namespace) -> argparse.Namespace:
    """All flags, of which those that are not given are the run's own or the defaults."""
    told = given(args)
    found = args.defaults | told
    if not found["resume"]:
        if found["run"] and folder.settings(Path(found["run"])):
            raise UsageError(
                f"{found['run']} has a run in it: add --resume to go on with it, or take another "
                "folder"
            )
        return argparse.Namespace(**found)
    if found["compare"] != "none":
        raise UsageError("--resume goes on with our run only: add --compare none")
    root = Path(found["run"]) if found["run"] else folder.latest(found["task"])
    kept = folder.settings(root)
    if not kept:
        raise UsageError(f"--resume: there is no run in {root}")
    if kept.get("compare", "none") != "none":
        raise UsageError(f"--resume: {root} has a comparison, of which nothing is saved")
    for name in FIXED:
        if name in told and name in kept and told[name] != kept[name]:
            flag = f"--{name.replace('_', '-')}"
            if kept[name] is None or kept[name] is False:
                raise UsageError(f"{root}: the run was begun without {flag}")
            raise UsageError(
                f"{root}: the run was begun with {flag} {kept[name]}, not {told[name]}"
            )
    return argparse.Namespace(**found | kept | told | {"run": str(root)})


def check_data(args: argparse.Namespace, title: str) -> None:
    """Refuses to go on with a task whose title, which has its sizes, is another than it was."""
    before = getattr(args, "title", title)
    if args.resume and before != title:
        raise UsageError(
            f"{args.run}: these are not the data that the run was begun with: {before}; now {title}"
        )


def to_keep(args: argparse.Namespace, **resolved: Any) -> dict[str, Any]:
    """What the folder of the run keeps."""
    return {name: getattr(args, name) for name in [*FIXED, *LOOSE, "compare"]} | resolved
