"""Jupyter's files, which say it in a sentence where there is no room for what is saved."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_server.services.contents.filecheckpoints import AsyncFileCheckpoints
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.utils import to_api_path
from tornado.web import HTTPError
from traitlets import default

from kernels.messages import persons_language, say, why

FULL = 507  # Insufficient Storage


def _no_room(error: BaseException | None) -> OSError | None:
    """The error that is behind it: of a new file Jupyter misses the copy that there was none of."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        error = error.__context__
    return None


class _Told:
    """The disk, or the folder's limit on it (project quotas): Jupyter has a number for each."""

    root_dir: str

    @contextmanager
    def perm_to_403(self, os_path: str = "") -> Iterator[None]:
        """Around all that is written. Raises HTTPError."""
        try:
            with super().perm_to_403(os_path):  # type: ignore[misc]
                yield
        except OSError as error:
            full = _no_room(error)
            if full is None:
                raise
            path = to_api_path(os_path or str(error.filename or ""), root=self.root_dir)
            said = say("no_room", path=path, reason=why(full)).in_words(persons_language())
            raise HTTPError(FULL, said) from error


class Checkpoints(_Told, AsyncFileCheckpoints):  # type: ignore[misc]
    """Of notebooks."""


class Contents(_Told, AsyncLargeFileManager):  # type: ignore[misc]
    """Of a person's server."""

    @default("checkpoints_class")
    def _checkpoints_class_default(self) -> Any:
        return Checkpoints
