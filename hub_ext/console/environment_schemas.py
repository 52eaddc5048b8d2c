"""What REST about environments and their builds takes and answers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from commons.web.openapi import Reason
from commons.web.operations import AnyText, Count, Query, Sent, Time, Told

_SOURCE = "image, shared, team-NAME, course-NAME or personal"


class Finding(Told):
    """What checks say of an environment."""

    level: str
    code: str
    message: str = Field(description="in English")
    remedy: str = Field(description="in English")
    sentence: str = Field(description="both, in the reader's language")
    change: dict[str, list[str]] | None = Field(
        None, description="of changed-by-hand: what .../derive makes a version of it with"
    )


class Version(Told):
    """One version: where it comes from, and what was decided about it."""

    version: str
    tag: str | None
    state: Literal["offered", "deprecated", "withdrawn", "removed"]
    current: bool
    pinned: bool
    deprecated: Time | None
    deprecated_reason: str | None
    withdrawn: Time | None
    withdrawn_reason: str | None
    created: Time
    built_by: str
    lock_digest: str
    size: str | None
    size_bytes: Count | None
    signature: Literal["signed", "unsigned", "wrong"] | None = Field(
        description="of an image: whether what it was made of is signed by a key that counts"
    )
    signature_why: str = Field(description="why it is not")


class MainPackage(Told):
    """A package that the environment's file names."""

    name: str
    version: str


class Package(BaseModel):
    """A package of an environment."""

    name: str
    version: str
    channel: str


class May(Told):
    """What the reader may do with it."""

    delete: bool
    copying: bool = Field(serialization_alias="copy")
    edit: bool = Field(description="change it in place")
    derive: bool = Field(description="have a copy of one's own with other packages")
    decide: bool


class Described(BaseModel):
    """What is known of an environment."""

    source: str = Field(description=_SOURCE)
    owner: str = Field(description="the person, team or course; empty for image and shared")
    name: str
    title: str
    description: str
    version: str
    now: Version
    versions: list[str]
    python: str | None
    main_packages: list[MainPackage]
    package_count: Count
    package_names: list[str]
    size: str | None
    size_bytes: Count | None
    built_by: str
    created: Time
    findings: list[Finding]
    holes: Count = Field(0, description="known holes of this version, found since it was built")


class Environment(Described):
    """An environment in the list."""

    may: May
    python_state: Literal["ok", "ending", "ended"] = Field(description="of Python's own support")
    python_end: str | None = Field(description="the day on which that ends")


class Environments(Told):
    """Environments that one may use."""

    environments: list[Environment]


class Details(Described):
    """An environment with its packages and versions."""

    spec: str | None = Field(None, description="the environment.yml that it was built from")
    words: str | None = Field(None, description="the labcommons.yml that it was built from")
    packages: list[Package]
    history: list[Version]


class OneEnvironment(Told):
    """One environment."""

    environment: Details


class Digest(Told):
    """What the list looks like, in short."""

    digest: str = Field(description="of names, versions and states")


class Looking(Told):
    """What becomes of the question."""

    looking: bool = Field(description="false: that was done just now")


class Build(Told):
    """Something that is, was or will be done with an environment."""

    id: str
    action: str = Field(description="create, publish, promote, delete, decide, …")
    source: str = Field(description=_SOURCE)
    owner: str
    name: str
    requested_by: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    percent: int = Field(ge=0, le=100)
    message: str = Field(description="in English")
    sentence: str | None = Field(
        description="the same in the language of the request, where it differs"
    )
    reason: Reason | None = Field(description="the message as data")
    explained: bool = Field(description="whether the sentence says all of the message")
    retry: bool = Field(description="whether asking again can end otherwise")
    correct: bool = Field(description="whether its text is kept, to be corrected and built")
    add: str | None = Field(description="the package that it fails for the want of")
    version: str | None
    cancel_asked: bool
    origin: dict[str, str] | None = Field(description="what it is a copy of")
    queued: Time
    ended: Time | None


class OneBuild(Told):
    """One build."""

    build: Build


class Builds(Told):
    """Builds, newest first."""

    builds: list[Build]


class BuildWithText(Build):
    """A build with the texts that it was asked for with."""

    spec: str = Field(description="environment.yml; empty where it has none")
    words: str = Field(description="labcommons.yml")


class FollowedBuild(Told):
    """How far a build is, and a part of its log."""

    build: BuildWithText
    log: str
    offset: Count = Field(description="where the next part begins, in bytes")


class Decided(Told):
    """A version as it is now, and the job that tells its folder."""

    version: Version
    build: Build | None


class Preview(Told):
    """What an environment.yml would become."""

    base: str = Field(description="the version that it is made from; empty for a failed build's")
    spec: str = Field(description="the whole environment.yml")
    words: str = Field(description="the whole labcommons.yml")
    diff: str = Field(description="how the environment.yml differs, as diff -u writes it")


class PackageChange(Told):
    """A package that differs; null: not there."""

    name: str
    before: str | None
    after: str | None


class Difference(Told):
    """Which packages differ between two versions."""

    older: str = Field(serialization_alias="from")
    newer: str = Field(serialization_alias="to")
    changes: list[PackageChange]


# -- what is sent -----------------------------------------------------------------------------


class NewEnvironment(Sent):
    """An environment to build."""

    source: AnyText = Field(None, description="personal, team-NAME, course-NAME or shared")
    name: AnyText = None
    spec: AnyText = Field(None, description="contents of an environment.yml")
    words: AnyText = Field(None, description="contents of a labcommons.yml")


class Copy(Sent):
    """Where a copy goes."""

    to: AnyText = Field(None, description=_SOURCE)
    name: AnyText = Field(None, description="its own name by default")


class Changes(Sent):
    """Packages that come and go."""

    add: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="conda's packages, as environment.yml lists them: numpy>=2",
    )
    pip: list[str] = Field(
        default_factory=list, max_length=100, description="requirements for the pip section"
    )
    remove: list[str] = Field(
        default_factory=list, max_length=100, description="names, wherever they are listed"
    )
    channels: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="conda's, to look into first; those that are listed stay where they are",
    )


class Derived(Changes):
    """A copy of one's own."""

    name: str | None = Field(
        None,
        description="of the copy; by default that of one's copy of it, else its own or one like it",
    )
    version: str = Field("", description="or its tag; that which people use by default")


class Edited(Changes):
    """An environment changed in place: its whole text, packages that come and go, or both."""

    spec: str | None = Field(None, description="the whole environment.yml; as it is by default")
    words: str | None = Field(None, description="the whole labcommons.yml; as it is by default")
    base: str = Field(
        "", description="the version that was edited; another one meanwhile is told (409)"
    )


class Corrected(Changes):
    """What failed, with its text corrected."""

    spec: str | None = Field(None, description="the whole environment.yml; as it was by default")
    words: str | None = Field(None, description="the whole labcommons.yml; as it was by default")


class Decision(Sent):
    """What is decided about a version."""

    reason: str = Field("", description="to deprecate or withdraw; shown to those who use it")
    tag: str | None = Field(None, description="a semantic version")
    undo: bool = Field(False, description="take it back")


class Whose(Query):
    """Whose personal environments."""

    user: str = Field("", description="a person's, for administrators; one's own by default")


class Export(Whose):
    """Which file."""

    wanted: str = Field("environment.yml", alias="format", description="of the file")
    version: str = Field("", description="or its tag; that which people use by default")


class Between(Whose):
    """Between which versions; by default the newest and the one before it."""

    before: str = Field("", alias="from")
    after: str = Field("", alias="to")


class From(Query):
    """From where on."""

    offset: int = Field(0, ge=0, le=2**53, description="in bytes")
