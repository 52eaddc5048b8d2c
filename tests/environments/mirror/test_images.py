"""Debian's docker-registry with the mirror's configuration, before one that has an image."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commons.site.mirror import Mirror
from environments.mirror.conf import kept, registry
from rig.nginx_mirror import free_port

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


ENTRYPOINT = Path(__file__).parents[3] / "config/images/registry/entrypoint"


@contextmanager
def _running(folder: Path, port: int, command: list[str]) -> Iterator[str]:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("ab"),
        env={**os.environ, "LABCOMMONS_REGISTRY": str(folder), "LABCOMMONS_TRY_AGAIN": "3"},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _status(f"{url}/v2/") == 200)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _until(right: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not right():
        assert time.monotonic() < end
        time.sleep(0.05)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def _get(url: str, accept: str = "*/*") -> bytes:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _push(url: str, blobs: list[bytes], manifest: bytes) -> None:
    for blob in blobs:
        begin = urllib.request.Request(f"{url}/v2/lab/base/blobs/uploads/", method="POST")
        with urllib.request.urlopen(begin, timeout=10) as answer:
            place = answer.headers["Location"]
        mark = "&" if "?" in place else "?"
        put = urllib.request.Request(
            f"{place}{mark}digest={_digest(blob)}", blob, method="PUT",
            headers={"Content-Type": "application/octet-stream"},
        )  # fmt: skip
        urllib.request.urlopen(put, timeout=10).close()
    put = urllib.request.Request(
        f"{url}/v2/lab/base/manifests/1", manifest, method="PUT",
        headers={"Content-Type": MANIFEST},
    )  # fmt: skip
    urllib.request.urlopen(put, timeout=10).close()


def test_an_image_that_was_pulled_is_there_when_its_registry_is_gone(tmp_path: Path) -> None:
    layer, config = b"a layer" * 1000, b'{"architecture":"amd64","os":"linux"}'
    described = [{"size": len(one), "digest": _digest(one)} for one in (config, layer)]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described[0]
            | {"mediaType": "application/vnd.docker.container.image.v1+json"},
            "layers": [
                described[1] | {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"}
            ],
        }
    ).encode()
    there, here = free_port(), free_port()
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    (far / "registry.yml").write_text(
        f'version: 0.1\nlog: {{level: error}}\nhttp: {{addr: "127.0.0.1:{there}"}}\n'
        f"storage: {{filesystem: {{rootdirectory: {far}/data}}}}\n"
    )
    mirror, listen = Mirror(images=f"http://127.0.0.1:{there}"), f"127.0.0.1:{here}"
    (near / "registry.yml").write_text(registry(mirror, f"{near}/data", listen))
    (near / "kept.yml").write_text(kept(f"{near}/data", listen))
    origin = [str(shutil.which("docker-registry")), "serve", str(far / "registry.yml")]
    blob = f"v2/lab/base/blobs/{_digest(layer)}"
    with _running(far, there, origin) as url:
        _push(url, [layer, config], manifest)
        with _running(near, here, ["sh", str(ENTRYPOINT)]) as url:
            assert _get(f"{url}/v2/lab/base/manifests/1", MANIFEST) == manifest
            assert _get(f"{url}/{blob}") == layer
            files = near / "data/docker/registry/v2/blobs/sha256"
            _until(lambda: list(files.glob(f"*/{_digest(layer).partition(':')[2]}/data")))
    with _running(near, here, ["sh", str(ENTRYPOINT)]) as url:
        assert _get(f"{url}/{blob}") == layer
        assert _get(f"{url}/v2/lab/base/manifests/1", MANIFEST) == manifest
        begin = urllib.request.Request(f"{url}/v2/lab/base/blobs/uploads/", method="POST")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(begin, timeout=10)
        # Once it is back, it is asked again.
        with _running(far, there, origin):
            _until(lambda: _status(f"{url}/v2/lab/base/manifests/2") == 404)
