"""The site file: right ones load, wrong ones say which key and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.site import Mount, Site, SiteFileError, load_site, parse_bytes, words_in
from commons.site.egress import mirror_places
from environments.condarc import condarc

CONFIG = Path(__file__).parents[2] / "config"
GOOD = """
version: 1
directory:
  servers: [ldaps://d.example.org]
  users: {base_dn: "ou=people,dc=example,dc=org"}
sizes:
  small: {cpu: 1, memory: 1G}
"""

SHARED = "gpus: {{source: site, devices: [{{id: G, model: T4, memory: 16G}}], sharing: [{}]}}\n"
MOUNT = "servers: {{mounts: {{a: {{source: '{}', target: '{}'}}}}}}\n"


def load(tmp_path: Path, text: str) -> object:
    (tmp_path / "site.yaml").write_text(text, "utf-8")
    return load_site(tmp_path / "site.yaml")


@pytest.mark.parametrize("file", ["site.yaml", "demo/site.yaml"])
def test_the_files_that_come_with_labcommons_are_right(file: str) -> None:
    load_site(CONFIG / file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("a: [", "not valid YAML"),
        ("a: &a [*a]", "a: Extra inputs"),
        (GOOD.replace("version: 1", "version: 2"), "version:"),
        (GOOD + "colour: blue\n", "colour: Extra inputs"),
        (GOOD.replace("memory: 1G", "memory: 1 elephant"), "sizes.small.memory:.*512M or 2G"),
        (GOOD.replace("cpu: 1", "cpu: -1"), "sizes.small.cpu:.*greater than 0"),
        (GOOD.replace("cpu: 1", "cpu: .nan"), "sizes.small.cpu:"),
        (GOOD.replace("ldaps://d.example.org", "http://d"), "ldaps://HOST"),
        (GOOD + "site: {public_url: 'http://x'}\n", "must be https://"),
        (GOOD + "mirror: {upstreams: [nearby]}\n", "mirror.upstreams.0:.*tuna"),
        (GOOD + "mirror: {upstreams: []}\n", "mirror.upstreams:"),
        (GOOD + "mirror: {conda: ['https://x.org/c']}\n", "{channel} where"),
        (GOOD + "mirror: {pypi: ['https://a:b@x.org/simple']}\n", "wants a login"),
        (GOOD + "mirror: {pypi: ['ftp://x.org']}\n", "such as https://pypi"),
        (GOOD + "mirror: {channels: ['../x']}\n", "a channel's name"),
        (GOOD + "mirror: {channels: [team-vision]}\n", "the site's own channels"),
        (GOOD + "mirror: {images: 'here'}\n", "a registry such as"),
        (GOOD + "site: {public_url: 'https://localhost'}\n", "set subdomains: false"),
        (GOOD + "site: {public_url: 'https://192.0.2.1'}\n", "set subdomains: false"),
        (GOOD + "site: {servers_host: 'https://x.example.org'}\n", "servers_host.*without https"),
        (GOOD + "site: {servers_host: '*.example.org'}\n", "servers_host.*must be a host name"),
        (GOOD + "site: {servers_host: lab.localhost}\n", "must be another host"),
        (GOOD + "gpus: {source: site}\n", "needs at least one device"),
        (GOOD + "gpus: {source: none, devices: [{id: G, model: x, memory: 1G}]}\n", "takes none"),
        (GOOD.replace("small:", "Small Size:"), "sizes"),
        (GOOD + SHARED.format("{method: mps, slots: 2}"), "name a model or list devices"),
        (GOOD + SHARED.format("{model: T4, method: mps, slots: 1}"), "slots:.*greater than"),
        (GOOD + SHARED.format("{model: T40, method: mps, slots: 2}"), "T40 is not listed.*T4"),
        (GOOD + SHARED.format("{devices: [H], method: mps, slots: 2}"), "H is not listed.*G"),
        (GOOD + SHARED.format("{model: T4, method: magic, slots: 2}"), "method:.*time-slicing"),
        (
            GOOD + "gpus: {source: site, devices: [{id: G, model: x, memory: 1G, node: one}, "
            "{id: H, model: x, memory: 1G, node: two}]}\n",
            "servers start on one machine",
        ),
        (GOOD + "gpus: {watch: {interval: 0}}\n", "gpus.watch.interval:.*greater than"),
        (GOOD + "kernels: {renamed: {'*': '{nothing}'}}\n", "fields are {environment}, {source}"),
        (GOOD + "kernels: {renamed: {'*': '{'}}\n", "kernels:.*renamed.*cannot be used"),
        (GOOD + "kernels: {nice: 20}\n", "kernels.nice:.*less than"),
        (GOOD + "kernels: {limits: {rss: 1G}}\n", "kernels.limits.rss.*'nofile'"),
        (GOOD + "kernels: {limits: {nofile: 4k}}\n", "limits.nofile: '4k' must be a number"),
        (GOOD + "kernels: {limits: {as: 8000}}\n", "limits.as: 8000 must be an amount such as 8G"),
        (GOOD + "kernels: {limits: {as: 8Q}}\n", "write for example 512M"),
        (GOOD + "kernels: {limits: {data: 1M}}\n", "less than 262144K"),
        (GOOD + "kernels: {limits: {nofile: 0}}\n", "less than 256"),
        (GOOD + MOUNT.format("data", "/x"), "mounts.a.*source: 'data' must be an absolute path"),
        (GOOD + MOUNT.format("/d/../etc", "/x"), "written without"),
        (GOOD + MOUNT.format("/d/", "/x"), "written without.*: /d"),
        (GOOD + MOUNT.format("//d", "/x"), "must be an absolute path"),
        (GOOD + MOUNT.format("/", "/x"), "the machine's own"),
        (GOOD + MOUNT.format("/run/docker.sock", "/x"), "the machine's own"),
        (GOOD + MOUNT.format("/d/{user}", "/x"), "may have {username} in it"),
        (GOOD + MOUNT.format("/d/{username!r}", "/x"), "may have {username} in it"),
        (GOOD + MOUNT.format("/d/{", "/x"), "cannot be filled in"),
        (GOOD + MOUNT.format("/d", "/home/{username}"), "target.*what a server itself needs"),
        (GOOD + MOUNT.format("/d", "/opt/labcommons/bin"), "target.*what a server itself needs"),
        (
            GOOD + "servers: {mounts: {a: {source: /a, target: /x}, b: {source: /b, target: /x}}}",
            "mounts.b: /x has mounts.a already",
        ),
        (GOOD + "mail: {host: m, sender: me}\n", "sender: the address"),
        (GOOD + "mail: {host: m, sender: a@b, user: x}\n", "go together"),
        (
            GOOD + "mail: {host: m, sender: a@b, user: x, password_file: /p, security: none}\n",
            "only sent over starttls or tls",
        ),
        (GOOD.replace("servers: [", "bind_dn: cn=x\n  servers: ["), "go together"),
    ],
)
def test_a_wrong_file_names_the_key_and_the_remedy(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SiteFileError, match=f"(?s)site.yaml.*{words}"):
        load(tmp_path, text)


def test_a_mirror_stands_for_its_channels_and_for_pypi(tmp_path: Path) -> None:
    text = """
environments:
  channels: [site, conda-forge, bioconda]
  mirrors:
    bioconda: [https://near.example.org/bioconda]
    private: [https://conda.lab.example/private]
  credentials: {conda.lab.example: {token_file: /x}}
mirror: {upstreams: [tuna, official]}
"""
    site = load(tmp_path, GOOD + text)
    assert isinstance(site, Site)
    assert site.mirror is not None
    assert site.environments.mirrors == {
        "conda-forge": ["http://mirror:8000/conda/conda-forge"],
        "bioconda": ["http://mirror:8000/conda/bioconda"],
        "private": ["https://conda.lab.example/private"],  # wants a login
    }
    assert site.environments.pip_index == "http://mirror:8000/pypi/simple"
    assert site.environments.pip_files == "https://files.pythonhosted.org"
    assert site.mirror.places(site.written)["bioconda"] == (
        "https://near.example.org/bioconda",
        "https://mirrors.tuna.tsinghua.edu.cn/anaconda/cloud/bioconda",
        "https://conda.anaconda.org/bioconda",
    )
    # Nobody but the mirror is open for what it stands for.
    assert mirror_places(site.environments) == [("conda.lab.example", 443)]


def test_defaults_are_two_channels_of_the_mirror(tmp_path: Path) -> None:
    site = load(tmp_path, GOOD + "mirror: {channels: [defaults], upstreams: [ustc]}\n")
    assert isinstance(site, Site)
    assert site.mirror is not None
    assert site.environments.mirrors == {"defaults": ["http://mirror:8000/conda/pkgs"]}
    assert site.mirror.places(site.written) == {
        "pkgs/main": ("https://mirrors.ustc.edu.cn/anaconda/pkgs/main",),
        "pkgs/r": ("https://mirrors.ustc.edu.cn/anaconda/pkgs/r",),
    }
    assert "http://mirror:8000/conda/pkgs/r" in condarc(site.environments, [])


def test_a_missing_file_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(SiteFileError, match="LABCOMMONS_SITE_FILE"):
        load_site(tmp_path / "none.yaml")


@given(st.integers(1, 10**6), st.sampled_from("KMGT"))
def test_units_are_powers_of_1024(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == number * 1024 ** ("KMGT".index(unit) + 1)


def test_a_missing_translation_falls_back_to_english() -> None:
    assert words_in({"en": "Small"}, "zh_CN") == "Small"
    assert words_in({"zh_CN": "小"}, "en") == "小"


def test_a_mount_has_the_persons_name_in_it() -> None:
    mount = Mount(source="/scratch/{username}", target="/home/{username}/scratch")
    assert mount.places("a.b") == ("/scratch/a.b", "/home/a.b/scratch")
    assert mount.read_only
