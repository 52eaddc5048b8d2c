"""Small base images for tests: what an environment needs of the server image, and no more."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

GLIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1")


def imported(engine: Any, files: dict[str, tuple[bytes, int]], tag: str) -> str:
    """An image of nothing but some files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    engine.import_image_from_data(
        buffer.getvalue(),
        repository="lc-tests-base",
        tag=tag,
        changes=['ENTRYPOINT ["/start"]', 'CMD ["server"]', "ENV SERVER=1", "WORKDIR /opt"],
    )
    return f"lc-tests-base:{tag}"


def glibc() -> dict[str, tuple[bytes, int]]:
    """This machine's C library: all that Debian's Python needs of an image."""
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    paths = {
        match[1]: match[2]
        for match in re.finditer(r"(\S+) \(libc6,x86-64[^)]*\) => (\S+)", cache.stdout)
    }
    files = {f"lib/x86_64-linux-gnu/{name}": paths[name] for name in GLIBC if name in paths}
    files["lib64/ld-linux-x86-64.so.2"] = "/lib64/ld-linux-x86-64.so.2"
    return {name: (Path(path).read_bytes(), 0o755) for name, path in files.items()}
