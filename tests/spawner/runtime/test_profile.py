"""Whatever is asked, no body leaves the agent that breaks the profile (rig.profile)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from commons.errors import LabError
from commons.scopes import owners
from commons.site import Site
from rig import agent, profile
from spawner.runtime.docker import materials
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.spec import (
    BuildStep,
    CloseExam,
    CourseStep,
    FetchMaterials,
    GradeFiles,
    ImageStep,
    KeepFiles,
    ListFiles,
    MakeExam,
    MakeFolder,
    MakeHome,
    ServerSpec,
    TakeFiles,
    Task,
)

PEOPLE = {"alice": 20003, "bob": 20002, "dan": 20005}
HOSTILE = [
    "", ".", "..", "../..", "/", "/etc", "a/b", "a\0b", "x" * 10_000, "\u202eevil", "名字", "-rf",
    "alice:/host", "alice,readonly=false", "${HOME}", "root", "990", "0", "a\nb", "%2e%2e", "image",
    "link", "secrets", "team-vision", "course-ml101", "team-../../etc", "shared/../../x", "null",
]  # fmt: skip
WORDS = st.sampled_from([*PEOPLE, "data", "1", "vision", *HOSTILE]) | st.text(max_size=40)
NUMBERS = st.sampled_from([0, -1, 1, 4, 990, 998, 999, 1000, *PEOPLE.values(), 20000, 2**31, 2**63])
BYTES = st.sampled_from([0, 1, 2**24, 2**28, 2**30, 2**60]) | st.integers()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> DockerRuntime:
    """An agent's, with people, folders and traps on its disk; its Engine is not asked."""
    data = agent.data_folder(tmp_path_factory.mktemp("data"))
    site = Site.model_validate(
        {
            "version": 1,
            "directory": {
                "servers": ["ldaps://ldap.example.org"],
                "users": {"base_dn": "dc=example,dc=org"},
                "teams": {"vision": {"gid": 21001, "leads_gid": 21002}},
                "courses": {"ml101": {}},
            },
            "sizes": {"small": {"cpu": 1, "memory": "1G"}},
            "gpus": {
                "source": "simulated",
                "devices": [{"id": "GPU-a0", "model": "A100", "memory": "80G"}],
            },
            "servers": {"mounts": {"sets": {"source": "/data/sets", "target": "/data/sets"}}},
        }
    )
    for name, uid in PEOPLE.items():
        agent.home(data, name, uid)
    (data / "homes" / "link").symlink_to("/etc")
    for area in ("materials", "staff"):
        (data / "courses" / "ml101" / area).mkdir(parents=True)
    (data / "courses" / "ml101" / "handins" / "hw1" / "alice" / "1" / "files").mkdir(parents=True)
    for folder in ("teams/vision", "kernels/image/data/1", "kernels/team-vision"):
        (data / folder).mkdir(parents=True)
    (data / "kernels" / "course-ml101").symlink_to("/root")
    (data / "agent").mkdir(exist_ok=True)
    for user, uid in PEOPLE.items():
        path = data / "courses" / "ml101" / "exams" / "midterm" / user
        path.mkdir(parents=True)
        os.chown(path, 990 if user == "dan" else uid, 20000)  # dan's is over
    return DockerRuntime(
        agent.settings(site, data, "lc-users", "labcommons/server:latest", closed="10.9.64.0/28")
    )


def account() -> st.SearchStrategy[Any]:
    owners = [20000, 21001, 21002, *(pair.members for pair in owners_of().values())]
    gids = st.sampled_from(owners) | NUMBERS
    services = st.just({"uid": 990, "gid": 990, "gids": []})
    return services | st.fixed_dictionaries(
        {"uid": st.sampled_from(sorted(PEOPLE.values())) | NUMBERS, "gid": gids},
        optional={"gids": st.lists(gids, max_size=4)},
    )


def owners_of() -> Any:
    site = Site.model_validate(
        {
            "version": 1,
            "directory": {
                "servers": ["ldaps://l"],
                "users": {"base_dn": "x"},
                "courses": {"ml101": {}},
            },
            "sizes": {"s": {"cpu": 1, "memory": "1G"}},
        }
    )
    return owners(site)


def env() -> st.SearchStrategy[Any]:
    names = st.sampled_from(
        ["PATH", "NVIDIA_VISIBLE_DEVICES", "nvidia_driver_capabilities", "LD_PRELOAD", "HOME",
         "A=B", "", "https_proxy", "PIP_INDEX_URL", "LABCOMMONS_AGENT_TLS", "DOCKER_RESOURCE_GPU",
         "X\0"]
    )  # fmt: skip
    return st.dictionaries(names | WORDS, WORDS, max_size=4)


LIMITS = st.fixed_dictionaries(
    {
        "cpu": st.sampled_from([0.5, 1, 0, -1, 1e9]),
        "memory": BYTES,
        "pids": st.sampled_from([16, 512, 0, -1, 10**9]),
        "shared_memory": BYTES,
        "tmp": BYTES,
    }
)
GOOD = {"cpu": 1, "memory": 2**28, "pids": 512, "shared_memory": 2**24, "tmp": 2**24}
SCOPES = st.sampled_from(["personal", "shared", "team-vision", "course-ml101", "image"]) | WORDS
IMAGES = st.just("sha256:" + "0" * 64) | WORDS
GPUS = st.none() | st.fixed_dictionaries(
    {
        "lease": WORDS,
        "devices": st.lists(
            st.fixed_dictionaries({"id": st.just("GPU-a0") | WORDS}), min_size=1, max_size=2
        ),
    }
)


EXAM = st.none() | st.fixed_dictionaries({"course": SCOPES, "exam": st.just("midterm") | WORDS})
MIDTERM = {"course": "course-ml101", "exam": "midterm"}


def good_server(**changed: Any) -> dict[str, Any]:
    return {
        "user": "alice",
        "server": "",
        "account": {"uid": 20003, "gid": 20000, "gids": [21001]},
        "image": "sha256:" + "0" * 64,
        "environment": "data",
        "version": "1",
        "limits": {"cpu": 1, "memory": 2**28, "pids": 512, "shared_memory": 0, "tmp": 2**24},
        "scopes": ["shared", "team-vision"],
        "mounts": ["sets"],
    } | changed


PERSON = st.sampled_from(sorted(PEOPLE))


@st.composite
def changed(draw: st.DrawFn, good: Any, fields: dict[str, Any]) -> Any:
    """Something good, with up to three of its fields as a compromised hub would have them."""
    names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True))
    return draw(good) | {name: draw(fields[name]) for name in names}


def numbers(user: str, gid: int = 20000) -> dict[str, Any]:
    return {"uid": PEOPLE[user], "gid": gid, "gids": []}


SERVER = changed(
    PERSON.map(lambda user: good_server(user=user, account=numbers(user))),
    {
        "user": WORDS,
        "server": WORDS,
        "account": account(),
        "image": IMAGES,
        "environment": WORDS,
        "version": WORDS,
        "limits": LIMITS,
        "scopes": st.lists(SCOPES, max_size=4),
        "mounts": st.lists(st.just("sets") | WORDS, max_size=3),
        "gpus": GPUS,
        "exam": EXAM,
        "env": env(),
        "args": st.lists(WORDS, max_size=3),
        "command": st.lists(WORDS, max_size=2),
        "addresses": WORDS,
        "privileged": st.just(True),
        "cap_add": st.just(["SYS_ADMIN"]),
    },
)


def step(kind: str, step: str, scope: str, user: str, gid: int = 20000) -> dict[str, Any]:
    services = scope == "shared" or step == "lock"
    return {
        "kind": kind,
        "job_id": "j1",
        "step": step,
        "scope": scope,
        "owner": user if scope == "personal" else None,
        "home": None if services else user,
        "account": {"uid": 990, "gid": 990} if services else numbers(user, gid),
        "limits": GOOD,
        "job": "{}",
    }


def exam_server(user: str = "alice", **changed: Any) -> dict[str, Any]:
    own = {"scopes": [], "mounts": [], "exam": MIDTERM, "server": "exam-midterm"}
    return good_server(user=user, account=numbers(user)) | own | changed


EXAM_SERVER = changed(
    PERSON.map(exam_server),
    {
        "user": WORDS,
        "account": account(),
        "scopes": st.lists(SCOPES, max_size=2),
        "mounts": st.lists(st.just("sets") | WORDS, max_size=2),
        "gpus": GPUS,
        "exam": EXAM,
        "env": env(),
    },
)
STEPS = st.sampled_from(["lock", "install", "look", "decide", "delete", "check"])
PLACES = st.sampled_from([("personal", 20000), ("shared", 20000), ("team-vision", 21001)])
TASK = st.one_of(
    changed(
        PERSON.map(lambda user: {"kind": "home", "user": user, "uid": PEOPLE[user], "gid": 20000}),
        {"user": WORDS, "uid": NUMBERS, "gid": NUMBERS},
    ),
    changed(st.just({"kind": "folder", "scope": "team-vision"}), {"scope": SCOPES}),
    changed(
        PERSON.map(
            lambda user: {
                "kind": "exam",
                "place": MIDTERM,
                "user": user,
                "uid": PEOPLE[user],
                "gid": 20000,
            }
        ),
        {"user": WORDS, "uid": NUMBERS, "gid": NUMBERS, "place": EXAM},
    ),
    changed(
        st.just({"kind": "exam-close", "place": MIDTERM, "user": "alice"}),
        {"user": WORDS, "place": EXAM},
    ),
    changed(
        st.tuples(STEPS, PLACES, PERSON).map(lambda t: step("build", t[0], t[1][0], t[2], t[1][1])),
        {
            "job_id": WORDS,
            "step": WORDS,
            "scope": SCOPES,
            "owner": WORDS,
            "home": WORDS,
            "account": account(),
            "limits": LIMITS,
            "env": env(),
        },
    ),
    changed(
        st.just({"kind": "image", "job_id": "j1", "limits": GOOD, "job": "{}"}),
        {
            "job_id": WORDS,
            "limits": LIMITS,
            "files": st.dictionaries(WORDS, WORDS, max_size=3),
            "env": env(),
        },
    ),
    changed(
        st.sampled_from(["pack", "seal", "remove"]).map(
            lambda step: {
                "kind": "course",
                "job_id": "a1",
                "step": step,
                "scope": "course-ml101",
                "job": "{}",
            }
        ),
        {"job_id": WORDS, "step": WORDS, "scope": SCOPES, "job": WORDS, "folder": WORDS},
    ),
)
MANY = hypothesis_settings(
    max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck)
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@MANY
@given(SERVER)
def test_no_server_breaks_the_profile(runtime: DockerRuntime, asked: Any) -> None:
    with suppress(ValidationError, LabError):
        spec = ServerSpec.model_validate_json(encoded(asked))
        body = body_of_server(runtime, spec)
        event("a body")
        profile.check(body, runtime.settings)
        uid = int(body["User"].partition(":")[0])
        assert os.lstat(runtime.settings.data / "homes" / spec.user).st_uid == uid


@MANY
@given(EXAM_SERVER)
def test_no_exams_server_has_more_than_its_folder(runtime: DockerRuntime, asked: Any) -> None:
    with suppress(ValidationError, LabError):
        spec = ServerSpec.model_validate_json(encoded(asked))
        body = body_of_server(runtime, spec)
        event("a body")
        profile.check(body, runtime.settings)


def body_of_server(runtime: DockerRuntime, spec: ServerSpec) -> dict[str, Any]:
    devices = asyncio.run(runtime.gpus.check(spec.gpus.devices)) if spec.gpus else {}
    address = runtime.exams.address([]) if spec.exam else ""
    return runtime.server_body(spec, devices, address=address)


@MANY
@given(TASK)
def test_no_task_breaks_the_profile(runtime: DockerRuntime, asked: Any) -> None:
    with suppress(ValidationError, LabError):
        task = TypeAdapter[Any](Task).validate_json(encoded(asked))
        body = body_of(runtime, task)
        event(f"a body for {task.kind}")
        profile.check(body, runtime.settings)


TAKE = changed(
    PERSON.map(
        lambda user: {
            "id": "h1", "user": user, "account": numbers(user), "path": "hw1", "most_files": 10,
            "most_bytes": 1000,
        }
    ),
    {
        "id": WORDS, "user": WORDS, "account": account(), "path": WORDS, "most_files": NUMBERS,
        "most_bytes": BYTES, "privileged": st.just(True),
    },
)  # fmt: skip
KEEP = changed(
    st.just(
        {
            "id": "h1", "scope": "course-ml101", "area": "handins", "place": "hw1/alice/1",
            "digest": "0" * 64,
        }
    ),
    {
        "id": WORDS, "scope": SCOPES, "area": WORDS, "place": WORDS, "digest": WORDS,
        "only": WORDS, "reader": NUMBERS, "receipt": WORDS,
    },
)  # fmt: skip


LIST = changed(
    PERSON.map(lambda user: {"user": user, "account": numbers(user), "path": "hw1"}),
    {"user": WORDS, "account": account(), "path": WORDS, "course": WORDS},
)


@MANY
@given(LIST)
def test_no_look_at_a_home_breaks_the_profile(runtime: DockerRuntime, asked: Any) -> None:
    with suppress(ValidationError, LabError):
        body = runtime.snapshots.listing(ListFiles.model_validate_json(encoded(asked)))
        event("a body")
        profile.check(body, runtime.settings)
        assert [mount["ReadOnly"] for mount in body["HostConfig"]["Mounts"]] == [True]


@MANY
@given(TAKE | KEEP)
def test_no_snapshot_breaks_the_profile(runtime: DockerRuntime, asked: Any) -> None:
    table = runtime.snapshots
    with suppress(ValidationError, LabError):
        if "user" in asked:
            task = TakeFiles.model_validate_json(encoded(asked))
            body = table.reading(task)
        else:
            body = table.keeping(KeepFiles.model_validate_json(encoded(asked)))
        event(f"a body with {len(body['HostConfig']['Mounts'])} mounts")
        profile.check(body, runtime.settings)


GRADING = {
    "id": "g1", "scope": "course-ml101", "handin": "hw1", "place": "hw1/alice/1",
    "image": "sha256:" + "0" * 64, "environment": "data", "version": "1",
    "limits": {"cpu": 1.0, "memory": 2**30, "pids": 64, "shared_memory": 0, "tmp": 0},
}  # fmt: skip
GRADE = changed(
    st.just(GRADING),
    {
        "id": WORDS, "scope": SCOPES, "handin": WORDS, "place": WORDS, "image": WORDS,
        "environment": WORDS, "version": WORDS, "seconds": NUMBERS, "network": WORDS,
    },
)  # fmt: skip


@MANY
@given(GRADE)
def test_no_grading_breaks_the_profile(runtime: DockerRuntime, asked: Any) -> None:
    table = runtime.grading
    with suppress(ValidationError, LabError):
        task = GradeFiles.model_validate_json(encoded(asked))
        folders = table.folders.make_grading(task.id)
        out = table.folders.make_snapshot(task.id)
        profile.check(table.running(task, folders), runtime.settings)
        profile.check(table.marking(task, folders, out), runtime.settings)
        profile.check(table.preparing(task, folders), runtime.settings)
        event("all three")


def test_a_students_code_sees_its_notebook_and_nothing_else(runtime: DockerRuntime) -> None:
    table, task = runtime.grading, GradeFiles.model_validate_json(encoded(GRADING))
    folders = table.folders.make_grading(task.id)
    reads = table.preparing(task, folders)
    runs = table.running(task, folders)
    marks = table.marking(task, folders, table.folders.make_snapshot(task.id))
    for body in (reads, runs, marks):
        profile.check(body, runtime.settings)
    sources = [
        [str(Path(one["Source"]).relative_to(runtime.settings.host_data)) for one in mounts]
        for mounts in (body["HostConfig"]["Mounts"] for body in (reads, runs, marks))
    ]
    ours = "agent/gradings/g1"
    assert sources == [
        ["courses/ml101/staff", "courses/ml101/handins/hw1/alice/1/files", f"{ours}/run",
         f"{ours}/book"],
        [f"{ours}/run"],
        [f"{ours}/book", f"{ours}/ran", "agent/snapshots/g1"],
    ]  # fmt: skip
    assert (runs["User"], runs["HostConfig"]["NetworkMode"]) == ("65534:65534", "none")
    assert runs["HostConfig"]["Memory"] == 2**30


FETCH = changed(
    st.just({"scope": "course-ml101", "git": "https://git.example.org/ml101.git"}),
    {
        "scope": SCOPES,
        "git": st.sampled_from(["", "file:///etc", "ext::sh -c id", "https://a:b@c/d"]) | WORDS,
        "branch": st.sampled_from(["--upload-pack=id", "a..b"]) | WORDS,
        "env": env(),
        "network": WORDS,
    },
)


@MANY
@given(FETCH)
def test_no_fetch_of_materials_breaks_the_profile(runtime: DockerRuntime, asked: Any) -> None:
    with suppress(ValidationError, LabError):
        task = FetchMaterials.model_validate_json(encoded(asked))
        assert task.git == "" or task.git.startswith("https://")
        assert "@" not in task.git
        assert not task.branch.startswith("-")
        body = materials.body(task, runtime.settings, runtime.places)
        event(f"a body with {len(body['HostConfig']['Mounts'])} mounts")
        profile.check(body, runtime.settings)


def test_a_team_takes_no_files_of_its_people(runtime: DockerRuntime) -> None:
    asked = {
        "id": "h1",
        "scope": "team-vision",
        "area": "handins",
        "place": "a",
        "digest": "0" * 64,
    }
    with pytest.raises(LabError, match="takes no files"):
        runtime.snapshots.keeping(KeepFiles.model_validate_json(encoded(asked)))


def body_of(runtime: DockerRuntime, task: Any) -> dict[str, Any]:
    if isinstance(task, MakeHome):
        return runtime.table.home(task)[1]
    if isinstance(task, MakeFolder):
        return runtime.table.folder(task)[1]
    if isinstance(task, MakeExam | CloseExam):
        return runtime.exams.task(task)[1]
    assert isinstance(task, BuildStep | ImageStep | CourseStep)
    body = runtime.table.build(task)
    for mount in body["HostConfig"]["Mounts"]:
        if mount["Target"] == "/job":
            laid = Path(mount["Source"]).resolve()
            assert laid.parent == runtime.settings.data / "agent" / "tasks"
    return body


def test_a_good_server_gets_what_it_is_for(runtime: DockerRuntime) -> None:
    body = body_of_server(runtime, ServerSpec.model_validate_json(encoded(good_server())))
    profile.check(body, runtime.settings)
    data = runtime.settings.host_data
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in body["HostConfig"]["Mounts"]] == [
        (f"{data}/homes/alice", "/home/alice", False),
        (f"{data}/kernels/image/data/1", "/opt/labcommons/registry/image", True),
        (f"{data}/kernels/team-vision", "/opt/labcommons/registry/team-vision", True),
        (f"{data}/shared", "/opt/labcommons/shared", True),
        (f"{data}/teams/vision", "/opt/labcommons/teams/vision", False),
        (f"{data}/cache/packages", "/opt/labcommons/pkgs", True),
        ("/data/sets", "/data/sets", True),
    ]


def test_a_folder_in_which_nobody_writes_is_there_to_read(runtime: DockerRuntime) -> None:
    asked = good_server(read_only=["team-vision"])
    body = body_of_server(runtime, ServerSpec.model_validate_json(encoded(asked)))
    shut = {m["Target"]: m["ReadOnly"] for m in body["HostConfig"]["Mounts"]}
    assert shut["/opt/labcommons/teams/vision"] is True


def test_what_makes_an_archive_reads_the_course_and_writes_archives_alone(
    runtime: DockerRuntime,
) -> None:
    task = CourseStep(job_id="a1", step="pack", scope="course-ml101", job="{}")
    body = runtime.table.build(task)
    profile.check(body, runtime.settings)
    data = runtime.settings.host_data
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in body["HostConfig"]["Mounts"]] == [
        (f"{data}/agent/tasks/a1-pack", "/job", True),
        (f"{data}/courses/ml101", "/course", True),
        (f"{data}/versions", "/versions", True),
        (f"{data}/archives", "/archives", False),
    ]
    with pytest.raises(LabError, match="no course"):
        runtime.table.build(task.model_copy(update={"scope": "team-vision"}))


def test_an_exams_server_has_its_folder_for_a_home_and_nothing_else(
    runtime: DockerRuntime,
) -> None:
    body = body_of_server(runtime, ServerSpec.model_validate_json(encoded(exam_server())))
    profile.check(body, runtime.settings)
    data = runtime.settings.host_data
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in body["HostConfig"]["Mounts"]] == [
        (f"{data}/courses/ml101/exams/midterm/alice", "/home/alice", False),
        (f"{data}/kernels/image/data/1", "/opt/labcommons/registry/image", True),
    ]
    assert body["NetworkingConfig"] == {
        "EndpointsConfig": {"lc-users": {"IPAMConfig": {"IPv4Address": "10.9.64.0"}}}
    }
    assert body["Labels"]["labcommons.exam"] == "course-ml101/midterm"


def test_no_two_exams_servers_have_one_address(runtime: DockerRuntime) -> None:
    taken: list[dict[str, Any]] = [{"Labels": None}]
    for _ in range(16):
        taken.append({"Labels": {"labcommons.address": runtime.exams.address(taken)}})
    assert len({str(one["Labels"]) for one in taken}) == 17
    with pytest.raises(LabError, match="room for 16"):
        runtime.exams.address(taken)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"user": "dan", "account": numbers("dan")}, "not open to this person"),
        ({"user": "bob", "account": numbers("alice")}, "not open to this person"),
        ({"account": {"uid": 20003, "gid": 20000, "gids": [21001]}}, "more than its own folder"),
        ({"scopes": ["shared"]}, "more than its own folder"),
        ({"mounts": ["sets"]}, "more than its own folder"),
        ({"exam": {"course": "team-vision", "exam": "midterm"}}, "no course"),
        ({"exam": {"course": "course-x", "exam": "midterm"}}, "no course"),
        ({"exam": {"course": "course-ml101", "exam": "final"}}, "not open to this person"),
    ],
)
def test_an_exams_server_that_would_have_more_is_refused(
    runtime: DockerRuntime, changed: dict[str, Any], why: str
) -> None:
    spec = ServerSpec.model_validate_json(encoded(exam_server(**changed)))
    with pytest.raises(LabError, match=why):
        body_of_server(runtime, spec)


def test_where_nothing_is_closed_there_is_no_exam(runtime: DockerRuntime) -> None:
    open_ = DockerRuntime(dataclasses.replace(runtime.settings, closed=""))
    with pytest.raises(LabError, match=r"servers\.perimeter"):
        open_.server_body(ServerSpec.model_validate_json(encoded(exam_server())), [])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"account": {"uid": 20002, "gid": 20000}}, "belongs to"),
        ({"account": {"uid": 990, "gid": 990}}, "the site's services"),
        ({"account": {"uid": 999, "gid": 20000}}, "min_uid"),
        ({"account": {"uid": 20003, "gid": 998}}, "min_gid"),
        ({"account": {"uid": 20003, "gid": 20000, "gids": [990]}}, "min_gid"),
        ({"user": "link"}, "not a folder"),
        ({"user": "nobody"}, "no such home"),
        ({"scopes": ["course-ml101"]}, "through a link"),
        ({"mounts": ["other"]}, "servers.mounts"),
        ({"env": {"A=B": "c"}}, "no variable"),
    ],
)
def test_what_no_honest_hub_asks_for_is_refused(
    runtime: DockerRuntime, changed: dict[str, Any], why: str
) -> None:
    spec = ServerSpec.model_validate_json(encoded(good_server(**changed)))
    with pytest.raises(LabError, match=why):
        body_of_server(runtime, spec)
