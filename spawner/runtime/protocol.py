"""What every runtime does: the whole vocabulary between the hub and whatever runs containers.

Three answers to "does it run": *running*, *gone*, *unknown*; unknown is never gone. Every call ends
within a time and raises ``RuntimeSilent`` where the runtime does not answer, which nobody may take
for "it is gone", or ``RuntimeRefused`` where it answers and will not do it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from commons.errors import RuntimeRefused
from commons.site.storage import Area
from kernels.hostile import Lines
from spawner.runtime.messages import TOO_MUCH_SAID
from spawner.runtime.spec import (
    CheckImage,
    CompileModules,
    EnvironmentName,
    Fetched,
    FetchMaterials,
    Graded,
    GradeFiles,
    Handle,
    ImageId,
    JobId,
    KeepFiles,
    Listed,
    ListFiles,
    LongTask,
    Name,
    Said,
    ServerName,
    ServerSpec,
    ShortTask,
    TakeFiles,
    Taken,
    Version,
)

# Of the output of one long task: bytes of a line (a result has a lock and its exports), bytes and
# lines of all.
MAX_LINE, MAX_OUTPUT, MAX_LINES = 8 * 2**20, 32 * 2**20, 200_000


Handles = Annotated[Sequence[Handle], Field(max_length=10_000)]
ImageIds = Annotated[Sequence[ImageId], Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Seconds = Annotated[int, Field(ge=0, le=86_400)]
Looking = Annotated[float, Field(ge=0, le=600)]
ImageName = Annotated[str, Field(max_length=300)]
Words = Annotated[str, Field(max_length=300)]


class TooMuchSaid(RuntimeRefused):
    """A task printed more than is listened to."""

    def __init__(self) -> None:
        super().__init__(TOO_MUCH_SAID())


def output_limits() -> Lines:
    """Of what is read of one long task."""
    return Lines(MAX_LINE, MAX_OUTPUT, MAX_LINES)


class Standing(StrEnum):
    """Whether something runs."""

    RUNNING = "running"
    GONE = "gone"
    UNKNOWN = "unknown"


class Node(Said):
    """A machine that can run servers. Memory in bytes, CPU in cores."""

    name: str
    cpu: int
    memory: int
    version: str  # of the agent
    site_digest: str = ""  # of the site file that the agent has read


class EngineState(Said):
    """What an agent's Engine is.

    Attributes:
        version: such as ``28.5.2``.
        cgroups: who keeps containers' cgroups: ``systemd``, ``cgroupfs`` or ``none``.
        cdi: whether devices can be asked for by names of CDI.
        cdi_devices: these names; None where the Engine does not tell them.
    """

    version: str
    cgroups: str = ""
    cdi: bool = False
    cdi_devices: tuple[str, ...] | None = None


# Bytes of the Engine's disk: with less, no container is made.
# Seconds that work on images may take, in the agent; whoever asks for it waits a little longer.
PUBLISH_SECONDS, CHECK_SECONDS, COMPILE_SECONDS = 3600, 600, 900
IMAGES_SECONDS = 600  # all other calls about images: removing one of many gigabytes, for instance
LEAST_ENGINE = 128 * 2**20


class Free(Said):
    """What a machine has left at this moment: bytes of memory, of the data folder's disk, and of
    the one on which its Engine makes containers.
    """

    node: str
    memory: int
    disk: int
    engine: int


class LargeFolder(Said):
    """A folder within, by its path (of whoever made it: any characters), and its bytes."""

    path: str
    bytes: int


class FolderUse(Said):
    """What a folder has of the disk: bytes, and its largest folders, in no order.

    Attributes:
        whole: it was looked through to its end.
    """

    bytes: int
    largest: tuple[LargeFolder, ...] = ()
    whole: bool = True


class ImageIdentity(Said):
    """What an image is, as it is signed.

    Attributes:
        media_type: what its id is the digest of: the configuration, or, where the Engine has the
            containerd store, a manifest or an index.
        layers: ``sha256:…`` of each layer's contents, the lowest first.
    """

    id: ImageId
    media_type: Words
    layers: tuple[ImageId, ...] = Field((), max_length=500)


class Dangling(Said):
    """Images without a name that went, or would: their number, and the bytes of their layers."""

    count: int
    bytes: int


class AreaLimits(Said):
    """Whether the file system itself keeps the limits of homes, teams or courses.

    Attributes:
        refusal: why it does not; empty where it does.
        folders: those whose limit it was told.
    """

    area: Area
    refusal: str = ""
    folders: int = 0


class ServerState(Said):
    """What is known of one server or task container.

    Attributes:
        handle: the runtime's own name of it, never used again for another.
        status: the Engine's word: created, running, exited, dead, …
        address: where it listens, in the network of servers; "" while it does not run.
        created: seconds since 1970.
        labels: ours (``labcommons.*``) alone.
        machine_restarted: it is older than its machine's last start, so that ended it.
        engine_restarted: it ended before anything that runs there began: a restart of the
            runtime's own Engine did it.
        token: the server's own, for the hub; said by ``inspect`` alone.
    """

    handle: str
    user: str
    server: str
    status: str
    exit_code: int = 0
    oom_killed: bool = False
    address: str = ""
    created: float = 0.0
    labels: dict[str, str] = Field(default_factory=dict)
    devices: tuple[str, ...] = ()
    machine_restarted: bool = False
    engine_restarted: bool = False
    token: str = Field("", repr=False)

    @property
    def standing(self) -> Standing:
        """Running while its process lives (a paused one does), else gone."""
        return Standing.RUNNING if self.runs else Standing.GONE

    @property
    def runs(self) -> bool:
        """Whether its process lives."""
        return self.status in ("running", "paused", "restarting")


class TaskEnd(Said):
    """How a task ended, and the end of what it printed, which is not to be trusted."""

    exit_code: int
    oom_killed: bool = False
    output: str = ""


class TrialEnd(Said):
    """How a program in an image ended, and the end of what it printed."""

    exit_code: int
    output: str = ""
    errors: str = ""


class EventKind(StrEnum):
    STARTED = "started"
    ENDED = "ended"
    # The stream was broken: whatever was not told is unknown; look again at everything.
    RESYNC = "resync"


class Event(Said):
    """Something happened to a server of this site; ``exit_code`` where it ended and that is known.

    ``at``: seconds since 1970.
    """

    kind: EventKind
    handle: str = ""
    at: float = 0.0
    exit_code: int | None = None


class Usage(Said):
    """What a server uses at this moment. Memory in bytes, CPU in cores."""

    memory: int
    cpu: float
    pids: int


class Runtime(Protocol):
    """Runs servers and tasks. Implementations: ``memory``, ``docker``, ``client`` (of an agent)."""

    async def nodes(self) -> list[Node]:
        """The machines, each as it says itself."""

    async def free(self) -> list[Free]:
        """What the machines have left; no more than a look, it may be asked before each start."""

    async def list_folders(self, area: Area) -> list[str]:
        """The names of folders that there are, of people, teams or courses."""

    async def measure(self, area: Area, name: Name) -> FolderUse | None:
        """What a folder has of the disk, at leisure: minutes; None where there is none.

        One at a time. Raises RuntimeRefused, RuntimeSilent.
        """

    async def disk_limits(self) -> list[AreaLimits]:
        """Of each area with a limit that was looked at since the runtime began."""

    async def limit_folder(self, area: Area, name: Name, limit: Bytes) -> None:
        """Say what one folder may have of the disk, in place of the site file's limit; 0: that one.

        It is remembered, and kept where the file system can. Raises RuntimeRefused, RuntimeSilent.
        """

    async def start(self, spec: ServerSpec) -> str:
        """Start a server, in place of an old container of the same one; its handle.

        An attempt of a job (``spec.job``) that was started before is not started again, whether or
        not it has ended: its handle is the answer.

        Leaves nothing behind when it fails. Who is cancelled, or hears nothing, calls
        ``remove_server``, which waits for a start that is under way. Raises RuntimeRefused,
        RuntimeSilent.
        """

    async def inspect(self, handles: Handles) -> Mapping[str, ServerState | None]:
        """Servers by handle; None only where the runtime says that there is none."""

    async def list(self) -> list[ServerState]:
        """All servers of this site, running or not; without tokens, addresses and exit codes."""

    async def stop(self, handle: Handle, grace: Seconds) -> None:
        """SIGTERM, ``grace`` seconds, SIGKILL. One that is gone is fine."""

    async def remove(self, handle: Handle) -> None:
        """Kill and remove. One that is gone is fine."""

    async def remove_server(self, user: Name, server: ServerName) -> None:
        """Kill and remove whatever container a person's server has, by its names.

        A start of it that is under way is waited for first.
        """

    async def logs(self, handle: Handle, lines: Count = 30) -> str:
        """The end of a server's output (20 kB at most). It is the user's: never trust it."""

    async def run_task(self, task: ShortTask) -> None:
        """Do it and return when it is done; who asks for what is being done waits for that.

        Raises RuntimeRefused with the cause, RuntimeSilent.
        """

    async def take(self, task: TakeFiles) -> Taken:
        """Copy what is in a home, anew each time; who asks for the same at once gets the same.

        Raises RuntimeRefused, RuntimeSilent.
        """

    async def list_files(self, task: ListFiles) -> Listed:
        """What is in a folder of a home now. Raises RuntimeRefused, RuntimeSilent."""

    async def keep(self, task: KeepFiles) -> bool:
        """Lay what was taken into a course's folder; what is there already is fine. Whether the
        reader can read it there.

        Raises RuntimeRefused (``snapshot_gone``: it has to be taken again), RuntimeSilent.
        """

    async def drop(self, snapshot: JobId) -> None:
        """Forget what was taken. What is gone is fine."""

    async def grade(self, task: GradeFiles) -> Graded:
        """Grade what was handed in, anew each time; who asks for the same at once gets the same.

        What cannot be graded is told in the answer. Minutes. ``drop`` forgets the feedback. Raises
        RuntimeRefused, RuntimeSilent.
        """

    async def fetch_materials(self, task: FetchMaterials) -> Fetched:
        """Give out a course's materials as they are now; who asks meanwhile gets the same end.

        What cannot be fetched changes nothing, and is told in the answer. Minutes at the most.
        Raises RuntimeRefused, RuntimeSilent.
        """

    async def begin(self, task: LongTask) -> str:
        """Start a long task, or find the container that is at it (after a restart); its handle."""

    def follow(self, handle: Handle, after: Count = 0) -> AsyncIterator[bytes]:
        """A task's output, line by line (without the line's end) to its last one, without the first
        ``after`` lines; within ``output_limits``. Ends when the task has ended and all is said.
        Raises TooMuchSaid, RuntimeRefused where there is no such task, RuntimeSilent."""

    async def task_end(self, handle: Handle) -> TaskEnd | None:
        """How a long task ended; None while it runs. Raises RuntimeRefused where there is none."""

    async def tasks(self) -> Mapping[str, str]:
        """Builds of this site that have a container: job id by handle."""

    async def usage(self, handles: Handles) -> Mapping[str, Usage]:
        """What running servers use; those that ended meanwhile are left out."""

    async def gpu_processes(self, handle: Handle) -> frozenset[int]:
        """The machine's numbers of the processes in a server, to be met in the driver's list."""

    async def probe_gpus(self, handle: Handle) -> int:
        """Exit code of the fixed probe in a server: whether it still reaches its GPUs."""

    async def versions_in_use(
        self, scope: Words, owner: Words, name: Name
    ) -> Mapping[str, frozenset[str]]:
        """Versions of an environment that processes of servers run from, by person."""

    async def read_gpus(self, seconds: Looking) -> str:
        """What the driver says of this machine's GPUs (JSON of ``docker.nvml``)."""

    def events(self) -> AsyncIterator[Event]:
        """What happens to servers; RESYNC at first, and after each gap. Never ends by itself.

        Raises RuntimeSilent when it breaks off: until it is asked again, all is unknown.
        """

    async def close(self) -> None:
        """Give back connections and threads."""


class ImageStore(Protocol):
    """Images of environments. Only what it has published itself can be started."""

    async def resolve(self, image: ImageName) -> ImageId | None:
        """The id of ``repository:tag`` or of an id; None where there is no such image."""

    async def identity(self, image: ImageName) -> ImageIdentity | None:
        """What an image is; None where there is no such image."""

    async def updated(self, image: ImageName) -> date | None:
        """When Debian's updates went into an image; None where it does not say."""

    async def engine_state(self) -> EngineState:
        """The Engine that the images are for."""

    async def publish(
        self,
        name: EnvironmentName,
        version: Version,
        base: ImageName,
        folder: Path,
        prefix: Words,
        labels: Mapping[str, str],
    ) -> ImageId:
        """Put a folder's files at ``prefix`` on top of a server image; untagged until ``tag``."""

    async def check(self, task: CheckImage) -> TrialEnd:
        """Try an image. Raises RuntimeRefused where it does not end in time."""

    async def compile(self, task: CompileModules) -> TrialEnd:
        """Compile modules. Raises RuntimeRefused where it does not end in time."""

    async def tag(self, image: ImageId, name: EnvironmentName, version: Version) -> None:
        """Give an image its name."""

    async def discard(self, image: ImageId) -> None:
        """Remove an image and its names; one that a server runs from stays. Never raises."""

    async def in_use(self) -> Mapping[str, str]:
        """Who has a server of which ``name:version``; also of images by their id."""

    async def prune_dangling(self, dry_run: bool) -> Dangling:
        """Remove images of ours that have lost their name, a week old and used by nothing."""

    async def orphans(self, known: ImageIds) -> list[str]:
        """Images of this site's environments, older than an hour, that are not among ``known``."""
