"""What is asked of a runtime, in neutral words: servers, tasks and images; nothing of an Engine.

These are the messages between hub and agent, so every field has a type and a bound, and nothing
else is taken (``extra="forbid"``). They name people, scopes and versions; where folders are, who
owns them and what a container may do is decided by the agent, from its own site file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from commons.scopes import SCOPES, Keeper

SERVER_PORT = 8888  # where a server listens, if nothing else is said
# With the agent's own ending (33 characters) it is one name of DNS, of 63.
MAX_NAME = 30
MAX_ID = 2**31 - 2  # the largest number of a user or group that Docker takes

_CHARACTER = r"[^/\x00-\x1f\x7f]"
# One component of a path: no separator, no NUL, never "." or "..".
_COMPONENT = rf"(?:\.{{0,2}}[^./\x00-\x1f\x7f]{_CHARACTER}*|\.{{3}}{_CHARACTER}*)"
Name = Annotated[str, Field(max_length=255, pattern=rf"^{_COMPONENT}$")]
# Also the unnamed (default) server of a person.
ServerName = Annotated[str, Field(max_length=255, pattern=rf"^{_CHARACTER}*$")]
# ``shared``, ``team-vision``, ``course-ml101``: sources of kernels, and scopes with a folder.


def _sources(*keepers: Keeper) -> str:
    """A pattern of the sources of scopes with a folder."""
    rows = [row for row in SCOPES.values() if row.folder and row.keeper in keepers]
    named = [f"{one.name}-{_COMPONENT}" if one.section else one.name for one in rows]
    return f"^({'|'.join(named)})$"


ScopeName = Annotated[str, Field(max_length=300, pattern=_sources(Keeper.SITE, Keeper.GROUP))]
EnvironmentName = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Version = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
ImageId = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
JobId = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
# A runtime's own name of a container; it may stand in an address.
Handle = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
# What Docker takes as a container's name.
ContainerName = Annotated[str, Field(max_length=MAX_NAME, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Number = Annotated[int, Field(ge=1, le=MAX_ID)]
Variables = Annotated[dict[str, Annotated[str, Field(max_length=131_072)]], Field(max_length=512)]

# How the names begin that nvidia-ctk gives to GPUs.
CDI = "nvidia.com/gpu="


class Said(BaseModel):
    """A message: frozen, and with no key that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Account(Said):
    """The numbers that a process runs with; never root's."""

    uid: Number
    gid: Number
    gids: tuple[Number, ...] = Field((), max_length=4096)


class Limits(Said):
    """What one container may use. Memory in bytes, CPU in cores.

    ``guaranteed``: of its memory, what counts in the sums of person and machine.
    """

    cpu: float = Field(gt=0, le=4096)
    memory: int = Field(ge=16 * 2**20, le=2**50)
    guaranteed: int = Field(0, ge=0, le=2**50)
    pids: int = Field(ge=16, le=1_000_000)
    shared_memory: int = Field(ge=0, le=2**50)
    tmp: int = Field(ge=0, le=2**50)


class Device(Said):
    """A device, or one share of a device that is shared (``index`` counts from 0)."""

    id: Annotated[
        str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9:/._-]*$")
    ]
    index: int = Field(0, ge=0, le=1024)


class Gpus(Said):
    """What a lease gives, and what is written on the container to write the lease again from."""

    lease: JobId
    devices: tuple[Device, ...] = Field(min_length=1, max_length=256)
    account: str = Field("", max_length=300)
    time_limit: float | None = Field(None, ge=0)


class ExamPlace(Said):
    """An exam of a course: its folders are below the course's."""

    course: ScopeName
    exam: Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9][a-z0-9-]*$")]


class JobRun(Said):
    """One attempt of a job: however often it is asked for, it is started once."""

    id: int = Field(ge=1, le=2**53)
    attempt: int = Field(ge=1, le=1000)

    @property
    def mark(self) -> str:
        """As the label says it."""
        return f"{self.id}.{self.attempt}"


class ServerSpec(Said):
    """One person's server.

    Attributes:
        image: id of an image in the catalog, which has ``environment`` (``name:version``).
        scopes: whose folders and kernels it gets beside the person's own.
        read_only: those of them in whose folders nobody writes.
        mounts: of the site file's ``servers.mounts``, by name: ``Mount.places(user)``.
        env: variables; those that decide what a container may see are the agent's.
        command: in place of the start command of our server images; empty: that one.
        args: after the command.
        port: where it listens.
        addresses: what the server was told of the site's; kept as a label.
        name: how the container's name begins. It ends with what the agent puts there
            (``names.server_key``), and all servers can read it: nothing of a person is in it.
        exam: its home is the person's folder of this exam; it has no other folder, no group and no
            GPU, and reaches the gate alone.
        job: it is no server but a job, whose program ``args`` are; ``server`` is its own name.
    """

    user: Name
    server: ServerName
    account: Account
    image: ImageId
    environment: EnvironmentName
    version: Version
    limits: Limits
    scopes: tuple[ScopeName, ...] = Field((), max_length=1024)
    read_only: tuple[ScopeName, ...] = Field((), max_length=1024)
    mounts: tuple[Name, ...] = Field((), max_length=64)
    gpus: Gpus | None = None
    env: Variables = Field(default_factory=dict)
    command: tuple[Annotated[str, Field(max_length=4096)], ...] = Field((), max_length=256)
    args: tuple[Annotated[str, Field(max_length=4096)], ...] = Field((), max_length=256)
    port: int = Field(SERVER_PORT, ge=1024, le=65535)
    addresses: str = Field("", max_length=2000)
    name: ContainerName = "server"
    exam: ExamPlace | None = None
    job: JobRun | None = None


# -- tasks: containers that run to their end; the table is closed ----------------------------------


class MakeHome(Said):
    """The home of a person: made if it is not there, never taken from another."""

    kind: Literal["home"] = "home"
    user: Name
    uid: Number
    gid: Number


class MakeFolder(Said):
    """The folder of a team, of a course, or of the shared environments: made or mended."""

    kind: Literal["folder"] = "folder"
    scope: ScopeName


class MakeExam(Said):
    """Somebody's folder of an exam, the course's being there: made, or given back to them."""

    kind: Literal["exam"] = "exam"
    place: ExamPlace
    user: Name
    uid: Number
    gid: Number


class CloseExam(Said):
    """Somebody's folder of an exam is the course's instructors' to read from now on, and nobody
    else's; its server, if it is still there, is removed first.
    """

    kind: Literal["exam-close"] = "exam-close"
    place: ExamPlace
    user: Name


class BuildStep(Said):
    """One step of a build that a person asked for, with that person's numbers.

    Attributes:
        step: ``lock`` chooses packages, as our services' user; no program of a package runs in it.
            All others work in the scope's folder.
        scope: ``personal`` or a scope; ``owner`` is the person where it is personal.
        home: the person whose home keeps the packages (``~/.cache``); None: the services' own.
        job: job.json.
    """

    kind: Literal["build"] = "build"
    job_id: JobId
    step: Literal["lock", "install", "look", "decide", "delete", "check"]
    scope: Annotated[str, Field(max_length=300, pattern=_sources(*Keeper))]
    owner: Name | None = None
    home: Name | None = None
    account: Account
    limits: Limits
    job: Annotated[str, Field(max_length=32 * 2**20)]
    env: Variables = Field(default_factory=dict)


# Of what is read of a home: why it cannot be taken as it is.
Refusal = Literal[
    "absent",
    "link",
    "special",
    "denied",
    "gone",
    "empty",
    "files",
    "bytes",
    "depth",
    "name",
    "time",
    "zip",
]
SnapshotPath = Annotated[
    str, Field(max_length=1000, pattern=rf"^{_COMPONENT}(/{_COMPONENT}){{0,15}}$")
]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TakeFiles(Said):
    """A copy of a file or folder in a person's home, read with that person's numbers.

    It is kept by the agent, where neither that person nor a course can reach it, until it is
    dropped. No link is followed; what is neither file nor folder is left out, and told.

    Attributes:
        most_files: files, folders and whatever else is met.
        most_bytes: as files claim to have: holes count.
        unzip: empty: a zip is a file like others. Else what is in it is taken, without a folder
            around all that has this name, or the zip's.
    """

    id: JobId
    user: Name
    account: Account
    path: SnapshotPath
    most_files: int = Field(ge=1, le=100_000)
    most_bytes: int = Field(ge=1, le=2**40)
    unzip: Annotated[str, Field(max_length=64)] = ""


class Taken(Said):
    """What came of it. ``digest``: SHA-256 of the manifest, which has that of each file.

    Attributes:
        refusal: why it cannot be taken as it is, and ``path`` what it is about; else empty.
        left_out: how many things of the manifest were not taken.
        top: the folders that are directly in it.
    """

    digest: str = ""
    files: int = 0
    bytes: int = 0
    left_out: int = 0
    top: tuple[str, ...] = Field((), max_length=5000)
    refusal: Refusal | Literal[""] = ""
    path: str = ""


class ListFiles(Said):
    """What is in a folder of a person's home, read with that person's numbers.

    ``path``: empty: the home itself. No link is followed or listed.
    """

    user: Name
    account: Account
    path: Annotated[
        str, Field(max_length=1000, pattern=rf"^({_COMPONENT}(/{_COMPONENT}){{0,15}})?$")
    ]


class ListedFile(Said):
    """One of them; ``bytes`` of a file, None: a folder."""

    name: str
    bytes: int | None = None


class Listed(Said):
    """By name, folders first; hidden ones are not among them.

    Attributes:
        left_out: how many more there are: links and the like, and those beyond a thousand.
        refusal: why it cannot be listed; else empty.
    """

    files: tuple[ListedFile, ...] = Field((), max_length=1000)
    left_out: int = 0
    refusal: Refusal | Literal[""] = ""


class KeepFiles(Said):
    """What was taken, laid into a course's folder, whole or not at all; nobody can change it there.

    Attributes:
        area: ``handins``: its instructors read it; ``feedback``: so does one person, whose uid is
            ``reader``, and what was there before is replaced.
        place: below the area; of feedback, the person's name comes first.
        only: a folder of what was taken; empty: all.
        receipt: JSON; laid beside the files, with the manifest.
    """

    id: JobId
    scope: ScopeName
    area: Literal["handins", "feedback"]
    place: SnapshotPath
    digest: Digest
    only: Annotated[str, Field(max_length=255)] = ""
    receipt: Annotated[str, Field(max_length=60_000)] = ""
    reader: Number | None = None


# Why materials cannot be fetched, and why something of them is not given out.
FetchFailure = Literal[
    "gone", "login", "unreachable", "branch", "empty", "files", "bytes", "time", "disk", "failed"
]
NotGiven = Literal["link", "large", "special", "repository", "name", "depth", "denied"]


class FetchMaterials(Said):
    """Give out what is in a git repository, or in the folder of a course's instructors.

    It becomes one more commit of the course's own repository, or nothing changes.

    Attributes:
        git: of a repository; empty: the folder. ``branch``: empty: its first one.
        env: proxies of this machine.
    """

    scope: ScopeName
    git: Annotated[str, Field(max_length=500, pattern=r"^(https://[^\s\x00-\x1f@]+)?$")] = ""
    branch: Annotated[str, Field(max_length=200, pattern=r"^([A-Za-z0-9_][A-Za-z0-9._/-]*)?$")] = ""
    env: Variables = Field(default_factory=dict)


class Fetched(Said):
    """What came of it: what is given out now, or why it cannot be fetched.

    Attributes:
        revision: of the course's own repository; the same as before where nothing has changed.
        left_out: of what is not given out, some by path, and why; ``more_left_out``: how many more.
        detail: the end of what git said, or a limit.
    """

    revision: Annotated[str, Field(pattern=r"^([0-9a-f]{40})?$")] = ""
    files: int = Field(0, ge=0)
    bytes: int = Field(0, ge=0)
    left_out: tuple[tuple[Annotated[str, Field(max_length=300)], NotGiven], ...] = Field(
        (), max_length=100
    )
    more_left_out: int = Field(0, ge=0)
    failure: FetchFailure | Literal[""] = ""
    detail: Annotated[str, Field(max_length=400)] = ""


# Why a hand-in cannot be graded by a program, and what was in the way of one notebook.
GradeFailure = Literal["source", "many", "nbgrader", "size", "memory", "time", "failed"]
MOST_POINTS = 1_000_000.0
Points = Annotated[float, Field(ge=0, le=MOST_POINTS, allow_inf_nan=False)]


class GradeFiles(Said):
    """Grade the notebooks of a hand-in by the instructors' (``source/HANDIN`` of their area).

    Attributes:
        id: of the snapshot that the feedback becomes.
        place: of what was handed in, below the course's ``handins``.
        image: of an environment with nbgrader, which is ``environment:version``.
        limits: of the one container in which a student's code runs; ``seconds``: of that code.
    """

    id: JobId
    scope: ScopeName
    handin: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
    place: SnapshotPath
    image: ImageId
    environment: EnvironmentName
    version: Version
    limits: Limits
    seconds: int = Field(600, ge=1, le=900)


class GradedNotebook(Said):
    """What a notebook's tests gave, of ``most`` points.

    Attributes:
        manual: something of it is for a person to mark.
        problem: empty, or "missing", "time", "died", or what is wrong with it, in English.
    """

    name: Annotated[str, Field(max_length=255)]
    score: Points
    most: Points
    manual: bool = False
    problem: Annotated[str, Field(max_length=300)] = ""


class Graded(Said):
    """What came of it: points, and feedback that ``keep`` can lay down; or why there is none.

    Attributes:
        digest, files, bytes: of the feedback, as ``Taken`` has it.
        detail: of a failure, not to be trusted.
    """

    notebooks: tuple[GradedNotebook, ...] = Field((), max_length=20)
    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    files: int = Field(0, ge=0, le=20)
    bytes: int = Field(0, ge=0, le=2**30)
    failure: GradeFailure | Literal[""] = ""
    detail: Annotated[str, Field(max_length=300)] = ""


class ImageStep(Said):
    """Build an image of an environment: solve, install, compile, publish, check; asked by a person.

    ``files`` (path -> text) are laid in the task's own folder.
    """

    kind: Literal["image"] = "image"
    job_id: JobId
    limits: Limits
    job: Annotated[str, Field(max_length=32 * 2**20)]
    files: dict[Annotated[str, Field(max_length=300)], str] = Field(
        default_factory=dict, max_length=8
    )
    env: Variables = Field(default_factory=dict)


class CourseStep(Said):
    """One step at the end of a course's term: its archive, in two steps, or its folder's removal.

    ``job``: job.json, with what our store knows of the course. What was packed can be packed anew;
    what is sealed or removed already is fine.
    """

    kind: Literal["course"] = "course"
    job_id: JobId
    step: Literal["pack", "seal", "remove"]
    scope: ScopeName
    job: Annotated[str, Field(max_length=32 * 2**20)]


# Of an environment's own programs: they run as nobody, or as our services' user, with no network.
Program = Annotated[
    tuple[Annotated[str, Field(max_length=131_072)], ...], Field(min_length=1, max_length=4096)
]
CachePath = Annotated[
    str, Field(max_length=1000, pattern=rf"^{_COMPONENT}(/{_COMPONENT}){{0,15}}$")
]


class CheckImage(Said):
    """Run a program in an image of an environment, as a stranger without rights and network."""

    image: ImageId
    program: Program
    env: Variables = Field(default_factory=dict)


class CompileModules(Said):
    """Compile modules with the Python of a lock, beside nothing but the packages it needs.

    ``prefix`` and ``work`` are folders of the package cache (data/cache). In the container:
    /packages (data/cache/packages), /prefix, /request.json and /out (of ``work``; written to).
    """

    image: ImageId
    program: Program
    prefix: CachePath
    work: CachePath
    env: Variables = Field(default_factory=dict)


ShortTask = MakeHome | MakeFolder | MakeExam | CloseExam
LongTask = BuildStep | ImageStep | CourseStep
Task = Annotated[ShortTask | LongTask, Field(discriminator="kind")]


def task_key(task: ShortTask | LongTask) -> str:
    """What makes two tasks the same: whoever asks for one that runs waits for that one."""
    match task:
        case MakeHome():
            return f"home-{task.user}"
        case MakeFolder():
            return f"folder-{task.scope}"
        case MakeExam() | CloseExam():
            return f"{task.kind}-{task.place.course}/{task.place.exam}/{task.user}"
        case BuildStep():
            return f"build-{task.job_id}-{task.step}"
        case ImageStep():
            return f"build-{task.job_id}-image"
        case CourseStep():
            return f"course-{task.job_id}-{task.step}"
