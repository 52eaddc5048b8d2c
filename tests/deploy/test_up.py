"""The last step of ``make up``: the login page as a browser gets it."""

from __future__ import annotations

import io
import os
import ssl
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy import engine, up
from deploy.settings import Settings
from deploy.shell import Failure
from deploy.steps import Step
from rig.certificates import Authority

Serve = Callable[..., Settings]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A site that answers with these statuses, the last one for ever."""
    servers: list[ThreadingHTTPServer] = []
    (tmp_path / "tls").mkdir()
    authority = Authority(tmp_path / "tls")

    def make(*statuses: int, name: str = "lab.example.org") -> Settings:
        left = list(statuses)

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue(name))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        port = server.server_address[1]
        return Settings("lab", (), "site.yaml", tmp_path, "127.0.0.1", port, 80)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def look(site: Settings) -> Step:
    step = Step(io.StringIO())
    up._login_page(site, up.Places("https://lab.example.org", ("lab.example.org",)), step)
    return step


def test_it_waits_until_the_proxy_knows_the_way_to_the_hub(serve: Serve) -> None:
    assert look(serve(404, 503, 200)).result == "answers"


def test_it_says_what_is_answered_when_the_time_is_over(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "LOGIN_TIMEOUT", 0)
    with pytest.raises(Failure, match="answers with status 404 instead of 200"):
        look(serve(404))


def test_an_authority_that_the_machine_does_not_know_is_named_in_a_bundle(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = serve(200)
    known = tmp_path / "bundle.pem"
    known.write_bytes((tmp_path / "tls" / "ca.crt").read_bytes())
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").ca_file
    (tmp_path / "tls" / "ca.crt").write_bytes(other.read_bytes())
    with pytest.raises(Failure, match="certificate does not verify") as caught:
        look(site)
    assert "LABCOMMONS_CA_BUNDLE" in caught.value.remedy
    monkeypatch.setenv("LABCOMMONS_CA_BUNDLE", str(known))
    assert look(site).result == "answers"


def test_a_certificate_for_another_name_is_said_at_once(serve: Serve) -> None:
    with pytest.raises(Failure, match="certificate does not verify"):
        look(serve(200, name="other.example.org"))


@pytest.mark.docker
@pytest.mark.skipif("LABCOMMONS_TESTBED" not in os.environ, reason="runs in the test bed")
def test_servers_that_were_told_other_addresses_are_stopped_and_no_others(
    proxy_image: str, tmp_path: Path
) -> None:
    docker = engine.find()
    project = f"lctest-{uuid.uuid4().hex[:8]}"
    places = up.Places("https://lab.example.org", ("lab.example.org", "*.lab.example.org"))
    wanted = {"new": places.addresses, "former": "https://lab.example.org", "older": None}

    def run(name: str, *labels: str) -> None:
        docker_run = ["docker", "run", "--detach", "--rm", f"--name={project}-{name}"]
        subprocess.run(
            [*docker_run, *(f"--label={label}" for label in labels), "--entrypoint=sleep",
             proxy_image, "600"],
            check=True, env={**os.environ, **docker.env}, timeout=60,
        )  # fmt: skip

    def running() -> set[str]:
        listing = docker.docker("ps", f"--filter=name={project}", "--format={{.Names}}")
        return {name.removeprefix(f"{project}-") for name in (listing or "").split()}

    try:
        for name, addresses in wanted.items():
            told = [f"labcommons.addresses={addresses}"] if addresses else []
            run(name, f"labcommons.site={project}", "labcommons.user=x", *told)
        run("builder", f"labcommons.site={project}")
        run("others", "labcommons.site=another", "labcommons.user=x")
        settings = Settings(project, (), "site.yaml", tmp_path, "127.0.0.1", 443, 80)
        with (tmp_path / "log").open("w") as log:
            step = Step(log)
            up._former_servers(docker, settings, places, step)
            assert step.result == "2 stopped, for their owners to start anew"
            assert running() == {"new", "builder", "others"}
            up._former_servers(docker, settings, places, step)
            assert step.result == "none"
    finally:
        docker.docker("rm", "--force", *(f"{project}-{name}" for name in running()))


@pytest.mark.parametrize(
    ("names", "apart"),
    [
        (("lab.example.org",), False),
        (("lab.example.org", "*.lab.example.org"), True),
        (("lab.example.org", "servers.example.org"), True),
    ],
)
def test_another_way_of_hosts_is_another_address(names: tuple[str, ...], apart: bool) -> None:
    places = up.Places("https://lab.example.org", names)
    assert places.apart is apart
    others = up.Places("https://lab.example.org", (*names, "x")), up.Places("https://l.org", names)
    assert places.addresses not in {other.addresses for other in others}
