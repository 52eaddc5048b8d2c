"""An exported Dockerfile, built and run by a plain Docker with mirrors that anybody could name."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployment import ROOT, Deployment

EXPORT = "/services/labcommons/api/v1/environments/image/py313-data/export?format="
# Stands in for micromamba's image, which is on a registry: the same words, by py-rattler.
BASE = """\
FROM labcommons/builder
USER root
ENTRYPOINT []
COPY explicit.py /opt/explicit.py
RUN printf '#!/bin/sh\\nexec /opt/labcommons/hub/bin/python /opt/explicit.py "$@"\\n' \\
  > /usr/local/bin/micromamba && chmod 755 /usr/local/bin/micromamba
"""


@pytest.fixture(scope="module")
def base_image(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("base")
    (folder / "Dockerfile").write_text(BASE)
    (folder / "explicit.py").write_bytes((ROOT / "tests/rig/explicit.py").read_bytes())
    deployment.docker("build", "--quiet", "--tag", "lctest/micromamba", str(folder))
    yield "lctest/micromamba"
    deployment.docker("image", "rm", "--force", "lctest/micromamba")


@pytest.fixture(scope="module")
def mirror(deployment: Deployment) -> Iterator[str]:
    """The site's channel over HTTP, as a mirror would serve it."""
    container = deployment.docker(
        "run", "--detach", "--rm", "--volume", f"{deployment.root}/data/channel:/channel:ro",
        "--entrypoint", "/opt/labcommons/hub/bin/python", "labcommons/builder",
        "-m", "http.server", "8000", "--directory", "/channel",
    ).strip()  # fmt: skip
    address = deployment.docker(
        "inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", container
    ).strip()
    yield f"http://{address}:8000"
    deployment.docker("rm", "--force", container)


def test_the_dockerfile_makes_the_same_environment(
    deployment: Deployment, admin: str, base_image: str, mirror: str
) -> None:
    def exported(format: str) -> str:
        request = urllib.request.Request(
            deployment.url + EXPORT + format, headers={"Authorization": f"token {admin}"}
        )
        with deployment.opener().open(request, timeout=30) as answer:
            return str(answer.read().decode())

    built = subprocess.run(
        ["docker", "build", "--quiet", "--tag", "lctest/exported", "--build-arg",
         f"BASE={base_image}", "--build-arg", f"CHANNEL_1={mirror}", "-"],
        input=exported("dockerfile"), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    try:
        prefix = "/opt/conda/envs/py313-data"
        said = deployment.docker(
            "run", "--rm", "lctest/exported", "python", "-c",
            "import numpy, pandas, sys; print(sys.prefix)",
        )  # fmt: skip
        assert said.strip() == prefix
        listed = deployment.docker("run", "--rm", "lctest/exported", "ls", f"{prefix}/conda-meta")
        wanted = {
            Path(line.partition("#")[0]).name.removesuffix(".conda")
            for line in exported("explicit").partition("@EXPLICIT\n")[2].splitlines()
        }
        found = {name.removesuffix(".json") for name in listed.split() if name.endswith(".json")}
        assert found == wanted
    finally:
        deployment.docker("image", "rm", "--force", "lctest/exported")


NAME = "py311-numpy1"  # nobody's server has it here


def test_what_was_built_is_signed_by_a_service_that_alone_has_the_key(
    clean: Deployment, admin: str, tmp_path: Path
) -> None:
    def labcommons(*words: str) -> Any:
        command = str(clean.root / "bin" / "labcommons")
        return json.loads(clean.run(command, "env", *words, "--json"))

    [one] = labcommons("verify", NAME)["versions"]
    if one["state"] == "unsigned":  # of a folder of earlier runs: a lost image is built again
        clean.docker("image", "rm", "--force", one["image_id"])
        labcommons("build", NAME)
        [one] = labcommons("verify", NAME)["versions"]
    assert (one["state"], one["image"], one["why"]) == ("signed", "seen", None)
    assert one["materials"] > 10

    request = urllib.request.Request(
        clean.url + EXPORT.replace("py313-data", NAME) + "provenance",
        headers={"Authorization": f"token {admin}"},
    )
    with clean.opener().open(request, timeout=30) as answer:
        envelope = json.loads(answer.read())
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    head = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode()
    (tmp_path / "message").write_bytes(head + payload)
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    [key] = labcommons("keys")["keys"]
    (tmp_path / "key.pem").write_text(key["pem"])
    clean.run(
        *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(tmp_path / "key.pem")),
        *("-rawin", "-in", str(tmp_path / "message"), "-sigfile", str(tmp_path / "signature")),
    )
    for service in ("hub", "console", "agent", "kernels", "audit", "signer"):
        seen = "test -e /run/labcommons/signing-key && echo yes || echo no"
        said = clean.docker("exec", clean.container(service), "sh", "-c", seen).strip()
        assert said == ("yes" if service == "signer" else "no"), service
