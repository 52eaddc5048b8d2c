"""What the machine itself sees. A check is a function with a name; it may raise, and hang::

    @check("disk")
    def disk(site: Site) -> Iterator[Row]:
        yield row("disk", "warning", ("is full", "已满"), ("make room", "请清理"), about="data/")

Words are pairs, English and Chinese: the catalogue is in the images, and this runs without them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy import images
from deploy.engine import parse_version
from deploy.settings import ROOT, Settings, brought_up
from deploy.shell import output

Row = dict[str, Any]
Pair = tuple[str, str]
LITTLE, VERY_LITTLE = 0.10, 0.03  # of a disk's room or inodes
ENGINE = (20, 10)  # the oldest that is tested
SELINUX = Path("/sys/fs/selinux/enforce")
MAKE_UP = ("run make up", "运行 make up")
MAKE_LOGS = ("see make logs, then run make up", "查看 make logs，然后运行 make up")
ROOM = (
    "labcommons disk prune; see who fills it: labcommons disk",
    "运行 labcommons disk prune；用 labcommons disk 查看谁占用最多",
)
CHECKS: dict[str, Callable[[Site], Iterable[Row]]] = {}


def check(name: str) -> Callable[[Any], Any]:
    """Add a check by the name it is shown under."""

    def add(function: Any) -> Any:
        CHECKS[name] = function
        return function

    return add


def row(name: str, state: str, cause: Pair, remedy: Pair = ("", ""), about: str = "") -> Row:
    """A finding, as ``hub_ext.doctor.registry.as_row`` makes them."""
    return {
        "check": name,
        "about": about,
        "state": state,
        "cause": dict(zip(("en", "zh_CN"), cause, strict=True)),
        "remedy": dict(zip(("en", "zh_CN"), remedy, strict=True)) if remedy[0] else {},
    }


@dataclass(frozen=True)
class Site:
    """The site of this checkout on this machine."""

    env: Mapping[str, str]  # for docker
    settings: Settings

    def ask(self, *words: str) -> str | None:
        """What a docker command prints; None when it fails."""
        return output(["docker", *words], timeout=5, env=self.env)

    @cached_property
    def containers(self) -> dict[str, dict[str, Any]]:
        """Docker's own description of each service's container, by the service."""
        found = self.ask(
            "ps", "--all", "--quiet", "--no-trunc",
            f"--filter=label=com.docker.compose.project={self.settings.project}",
            "--filter=label=com.docker.compose.oneoff=False",
        )  # fmt: skip
        if not found:
            return {}
        described = json.loads(self.ask("inspect", *found.split()) or "[]")
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in described}

    def container(self, service: str) -> str | None:
        """A service's container, if it runs."""
        found = self.containers.get(service)
        return str(found["Id"]) if found and found["State"]["Status"] == "running" else None

    def last_words(self, container: str, lines: int = 8) -> str:
        """The end of its log, without what would colour a terminal."""
        words = ["docker", "logs", f"--tail={lines}", container]
        try:
            done = subprocess.run(
                words,
                capture_output=True,
                timeout=5,
                env={**os.environ, **self.env},
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        text = (done.stdout + done.stderr).decode("utf-8", "replace")[-4000:]
        return "".join(one for one in text if one in "\n\t" or one.isprintable()).strip()

    def facts(self) -> dict[str, Any]:
        """What the hub's checks want to know of the machine."""
        images = self.ask("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
        facts: dict[str, Any] = {"time": time.time()}
        if images is not None:
            facts["images"] = images.split()
        return facts


@check("services")
def services(site: Site) -> Iterator[Row]:
    """Whether each service runs, is healthy, and does not restart over and over."""
    if not site.containers:
        said = "there are no services of this site", "没有本站点的服务"
        yield row("services", "broken", said, MAKE_UP)
    for name, found in sorted(site.containers.items()):
        state = found["State"]
        health = (state.get("Health") or {}).get("Status", "")
        status, again = state["Status"], found.get("RestartCount", 0)
        if status != "running":
            code = state.get("ExitCode", 0)
            said = f"{status}, exit code {code}", f"{status}，退出码 {code}"
            yield row("services", "broken", said, MAKE_LOGS, name)
        elif health == "unhealthy":
            yield row("services", "broken", ("is not healthy", "不健康"), MAKE_LOGS, name)
        elif again > 3:
            said = f"was restarted {again} times", f"已重启 {again} 次"
            yield row("services", "warning", said, MAKE_LOGS, name)
        elif health == "starting":
            yield row("services", "advice", ("is starting", "正在启动"), about=name)
        else:
            yield row("services", "ok", ("runs", "正在运行"), about=name)


def why_no_hub(site: Site) -> Iterator[Row]:
    """The hub's last words."""
    found = site.containers.get("hub")
    if not found:
        yield row("hub", "broken", ("there is none", "不存在"), MAKE_UP)
        return
    text = site.last_words(found["Id"])
    said = (f"its last words: {text}", f"最后的日志：{text}") if text else ("is silent", "没有日志")
    yield row("hub", "broken", said, MAKE_LOGS)


@check("Engine")
def engine(site: Site) -> Iterator[Row]:
    """Version, live-restore, the disk driver."""
    text = site.ask("info", "--format", "{{json .}}")
    if text is None:
        said = "Docker Engine does not answer", "Docker Engine 没有应答"
        yield row(
            "Engine", "broken", said, ("systemctl restart docker", "systemctl restart docker")
        )
        return
    info = json.loads(text)
    version, driver = str(info.get("ServerVersion", "")), str(info.get("Driver", ""))
    if tuple(parse_version(version))[:2] < ENGINE:
        said = f"Engine {version} is too old", f"Engine {version} 版本过旧"
        yield row("Engine", "warning", said, ("install a newer one", "请安装更新的版本"))
    if not info.get("LiveRestoreEnabled"):
        said = (
            "without live-restore: when the Engine ends, people's servers end",
            "未启用 live-restore：Engine 停止时，用户的服务器也会停止",
        )
        todo = '"live-restore": true in /etc/docker/daemon.json, then systemctl reload docker'
        in_chinese = (
            '在 /etc/docker/daemon.json 中设置 "live-restore": true，'
            "然后运行 systemctl reload docker"
        )
        yield row("Engine", "advice", said, (todo, in_chinese))
    if driver in ("vfs", "devicemapper", "aufs"):
        said = (
            f"disk driver {driver}: every container copies its whole image",
            f"磁盘驱动 {driver}：每个容器都会复制整个镜像",
        )
        todo = "use overlay2: a data-root on ext4 or XFS (ftype=1)"
        in_chinese = "改用 overlay2：将 data-root 放在 ext4 或 XFS（ftype=1）上"
        yield row("Engine", "warning", said, (todo, in_chinese))
    yield row("Engine", "ok", (f"{version}, {driver}", f"{version}，{driver}"))


@check("disk")
def disk(site: Site) -> Iterator[Row]:
    """Room and inodes of each place under data/ and of the Engine's root."""
    root = site.ask("info", "--format", "{{.DockerRootDir}}")
    data = site.settings.data
    places = {"data/": data, **{f"data/{one.name}/": one for one in _folders(data)}}
    if root:
        places["Engine"] = Path(root)
    seen: set[int] = set()
    for name, place in places.items():
        try:
            device, state = place.stat().st_dev, os.statvfs(place)
        except OSError as error:
            if name != "Engine":  # its root may be another machine's, or hidden from us
                said = f"cannot be looked at: {error.strerror}", f"无法检查：{error.strerror}"
                yield row("disk", "unknown", said, about=name)
            continue
        if device in seen:
            continue
        seen.add(device)
        yield _room(name, state)


def _folders(data: Path) -> list[Path]:
    try:
        return sorted(one for one in data.iterdir() if one.is_dir())
    except OSError:
        return []


def _room(name: str, state: os.statvfs_result) -> Row:
    room = state.f_bavail / state.f_blocks if state.f_blocks else 1.0
    inodes = state.f_favail / state.f_files if state.f_files else 1.0
    free = f"{state.f_bavail * state.f_frsize / 2**30:.1f} GiB"
    said = (
        f"{free} free ({room:.0%}), inodes {inodes:.0%} free",
        f"剩余 {free}（{room:.0%}），inode 剩余 {inodes:.0%}",
    )
    least = min(room, inodes)
    if least < LITTLE:
        return row("disk", "broken" if least < VERY_LITTLE else "warning", said, ROOM, name)
    return row("disk", "ok", said, about=name)


@check("ports")
def ports(site: Site) -> Iterator[Row]:
    """Whether the proxy can be reached at its ports."""
    for port in (site.settings.https_port, site.settings.http_port):
        place = f"{site.settings.connect_to}:{port}"
        try:
            socket.create_connection((site.settings.connect_to, port), timeout=3).close()
        except OSError as error:
            said = (
                f"nothing answers: {error.strerror or error}",
                f"没有应答：{error.strerror or error}",
            )
            todo = (
                "see that the proxy runs, and that nothing else has the port: "
                f"ss -ltnp 'sport = :{port}'",
                f"确认 proxy 正在运行，且端口未被占用：ss -ltnp 'sport = :{port}'",
            )
            yield row("ports", "broken", said, todo, place)
        else:
            yield row("ports", "ok", ("answers", "有应答"), about=place)


@check("NTP")
def ntp(site: Site) -> Iterator[Row]:
    """Whether something keeps the machine's clock, where it can be asked."""
    found = output(["timedatectl", "show", "--property=NTPSynchronized", "--value"], timeout=4)
    if found == "yes":
        yield row("NTP", "ok", ("keeps the clock", "正在校时"))
    elif found == "no":
        said = "the clock is not synchronized", "时钟未同步"
        todo = "timedatectl set-ntp true, or install chrony"
        yield row("NTP", "warning", said, (todo, "运行 timedatectl set-ntp true，或安装 chrony"))
    else:
        said = "cannot be asked: there is no timedatectl", "无法查询：没有 timedatectl"
        yield row("NTP", "ok", said)


@check("security")
def security(site: Site) -> Iterator[Row]:
    """Whether SELinux or AppArmor confines containers, where the kernel has one of them."""
    options = site.ask("info", "--format", "{{json .SecurityOptions}}") or ""
    if "name=selinux" in options or "name=apparmor" in options:
        yield row("security", "ok", ("containers are confined", "容器受到限制"))
    elif SELINUX.exists():
        said = "SELinux is on, and the Engine does not use it", "SELinux 已启用，但 Engine 未使用它"
        todo = '"selinux-enabled": true in /etc/docker/daemon.json'
        in_chinese = '在 /etc/docker/daemon.json 中设置 "selinux-enabled": true'
        yield row("security", "advice", said, (todo, in_chinese))
    else:
        said = "the kernel has neither SELinux nor AppArmor on", "内核未启用 SELinux 或 AppArmor"
        todo = "on Debian and Ubuntu: install apparmor and restart the machine"
        yield row(
            "security", "advice", said, (todo, "在 Debian 和 Ubuntu 上：安装 apparmor 并重启机器")
        )


@check("updates")
def updates(site: Site) -> Iterator[Row]:
    """How old Debian's updates in our images are."""
    said = site.ask("image", "inspect", "--format", "{{json .Config.Labels}}", "labcommons/hub")
    day = (json.loads(said or "null") or {}).get(images.UPDATED, "")[:10]
    try:
        age = (date.today() - date.fromisoformat(day)).days
    except ValueError:
        todo = "REFRESH=yes make up"
        yield row("updates", "unknown", ("their age is not known", "更新时间未知"), (todo, todo))
        return
    words = (
        f"Debian's updates in the images are of {day} ({age} days ago)",
        f"镜像中的 Debian 更新来自 {day}（{age} 天前）",
    )
    old, todo = age > images.OLD, "REFRESH=yes make up"
    yield row("updates", "advice" if old else "ok", words, (todo, todo) if old else ("", ""))


@check("versions")
def versions(site: Site) -> Iterator[Row]:
    """Whether services run the images that this checkout's last make up built, and these images
    belong together: each stands on the one that is there, so that none is of another version.
    """
    old = []
    for name, found in sorted(site.containers.items()):
        image = found["Config"]["Image"]
        now = site.ask("image", "inspect", "--format", "{{.Id}}", image)
        if now is not None and now != found["Image"]:
            old.append(name)
    if old:
        said = f"run an earlier image: {', '.join(old)}", f"运行的是旧镜像：{', '.join(old)}"
        yield row("versions", "warning", said, MAKE_UP)
    yield from _images_apart(site)
    code = output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], timeout=4) or "?"
    head, was = output(["git", "-C", str(ROOT), "rev-parse", "HEAD"], timeout=4), brought_up()
    if head and was and not head.startswith(was.removesuffix("+")):
        said = (
            f"the checkout is {code}, and the site was last brought up from {was}",
            f"当前代码版本为 {code}，而站点上次是用 {was} 启动的",
        )
        yield row("versions", "warning", said, MAKE_UP, "checkout")
    else:
        yield row("versions", "ok", (f"checkout {code}", f"代码版本 {code}"))


def _images_apart(site: Site) -> Iterator[Row]:
    """Images of ours that are missing, or stand on another than the one that is there."""
    layers: dict[str, list[str]] = {}
    for image in (images.BASE, *images.IMAGES):
        text = site.ask("image", "inspect", "--format", "{{json .RootFS.Layers}}", image.tag)
        if text is not None:
            layers[image.name] = json.loads(text)
    for image in images.needed(site.settings.profiles):
        mine, base = layers.get(image.name), layers.get(image.base)
        if mine is None:
            said = f"the image {image.tag} is not there", f"镜像 {image.tag} 不存在"
            yield row("versions", "broken", said, MAKE_UP, image.name)
        elif base is not None and mine[: len(base)] != base:
            said = (
                f"the image {image.tag} is of another version than labcommons/{image.base}",
                f"镜像 {image.tag} 与 labcommons/{image.base} 不是同一版本",
            )
            yield row("versions", "warning", said, MAKE_UP, image.name)


@check("perimeter")
def perimeter(site: Site) -> Iterator[Row]:
    """Whether the rules of who reaches whom are in place."""
    keeper = site.container("perimeter")
    if keeper is None:
        said = (
            "its keeper does not run: rules that somebody removes stay away",
            "守护进程未运行：被删除的规则不会恢复",
        )
        yield row("perimeter", "broken", said, MAKE_UP)
        return
    text = site.ask("exec", keeper, "cat", "/run/perimeter.json")
    problem = str(json.loads(text or "{}").get("problem", "?"))
    if problem:
        todo = "labcommons perimeter check says more; docs/perimeter.md"
        in_chinese = "labcommons perimeter check 提供更多信息；见 docs/perimeter.md"
        said = f"the rules are not in place: {problem}", f"规则未生效：{problem}"
        yield row("perimeter", "broken", said, (todo, in_chinese))
    else:
        yield row("perimeter", "ok", ("the rules are in place", "规则已生效"))
