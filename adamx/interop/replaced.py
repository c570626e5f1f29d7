# SPDX-License-Identifier: Apache-2.0
"""Files that have their old content or the whole new one, whatever happens while they are written.

So the file that is read may be the one that is written.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yields the path of a new file, which takes the place of `path` when all is written.

    Example:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
      >>> with replaced(path) as new:
      ...     _ = new.write_text("b")
      >>> path.read_text()
      'b'
    """
    new = path.with_name(f"{path.name}.new")
    try:
        yield new
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
