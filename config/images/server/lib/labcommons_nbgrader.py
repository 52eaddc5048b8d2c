"""nbgrader's exchange, by the site's courses: no folder that everybody writes, and nothing as root.

An assignment is released into the course's share, which its people read; submitting is handing in
(a row, a receipt, a copy that the student cannot change); collecting reads what was handed in, as
the course's instructors may; feedback is each student's own folder. Imported by nbgrader in an
environment: nbgrader's own packages alone. ``/opt/labcommons/etc/nbgrader_config.py`` names it.
"""

import json
import os
import shutil
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from nbgrader.exchange import abc
from traitlets import Float, Unicode

RELEASED = "assignments"  # below a course's share
TIMEOUT = 30  # seconds for one request


class Exchange(abc.Exchange):
    """What the others share: where a course's folders are, and the site's hand-ins."""

    root = Unicode("/opt/labcommons/courses", help="Where courses are in a server.").tag(
        config=True
    )
    wait = Float(120.0, help="Seconds to wait until something is handed in.").tag(config=True)

    @property
    def course(self) -> str:
        """The course's name: as nbgrader was told, or the only one there is."""
        name = self.coursedir.course_id
        there = sorted(one.name for one in Path(self.root).glob("*") if one.is_dir())
        if not name and len(there) == 1:
            name = there[0]
        if not name:
            self.fail(f"Which course? Say --course and one of: {', '.join(there) or 'none'}.")
        if name not in there:
            self.fail(f"You are in no course {name} in this server: {', '.join(there) or 'none'}.")
        return name

    @property
    def assignment(self) -> str:
        """The assignment's name, which is the hand-in's."""
        return os.path.basename(os.path.normpath(self.coursedir.assignment_id))

    def of_course(self, *parts: str) -> Path:
        return Path(self.root, self.course, *parts)

    def released(self) -> Path:
        return self.of_course("files", RELEASED, self.assignment)

    def mine(self) -> Path:
        """One's own copy of an assignment."""
        return Path(self.assignment_dir).resolve() / self.assignment

    def ask(self, verb, path, body=None):
        """Ask the site, for this server's owner; what it refuses is said as it says it."""
        url, token = (os.environ.get(n) for n in ("LABCOMMONS_CONSOLE_URL", "JUPYTERHUB_API_TOKEN"))
        if not url or not token:
            self.fail("This is no server of the site: hand in on the course’s page.")
        request = Request(  # noqa: S310  (the site's own address)
            f"{url.rstrip('/')}/api/v1/courses/{quote(self.course)}/{path}",
            method=verb,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
        )
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                return json.load(answer)
        except HTTPError as error:
            try:
                said = json.loads(error.read(100_000))["error"]["message"]
            except (ValueError, KeyError, TypeError):
                said = f"the site answered {error.code}"
            self.fail(str(said))
        except (URLError, OSError, ValueError) as error:
            self.fail(f"The site does not answer ({error}). Try again, or use the course’s page.")

    def lay(self, source: Path, target: Path) -> None:
        """Copy plain files; rights are those of the folder that they come into."""
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.rglob("*")):
            if path.is_symlink() or any(part.startswith(".ipynb_") for part in path.parts):
                continue
            there = target / path.relative_to(source)
            if path.is_dir():
                there.mkdir(exist_ok=True)
            elif path.is_file():
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, there)

    def init_src(self):
        """Nothing by itself."""

    def init_dest(self):
        """Nothing by itself."""


class ExchangeReleaseAssignment(Exchange, abc.ExchangeReleaseAssignment):
    """What ``nbgrader generate_assignment`` made, for all in the course to read."""

    def copy_files(self):
        made = Path(
            self.coursedir.format_path(self.coursedir.release_directory, ".", self.assignment)
        )
        if not made.is_dir():
            self.fail(f"There is no {made}; run “nbgrader generate_assignment {self.assignment}”.")
        if self.released().exists():
            if not self.force:
                self.fail(f"{self.assignment} is released already; --force does so again.")
            shutil.rmtree(self.released())
        self.lay(made, self.released())
        self.log.info("Released as: %s", self.released())


class ExchangeFetchAssignment(Exchange, abc.ExchangeFetchAssignment):
    """One's own copy; what is there stays."""

    def copy_files(self):
        if not self.released().is_dir():
            self.fail(f"{self.assignment} is not released in {self.course}.")
        if self.mine().exists() and not self.replace_missing_files:
            self.fail(f"You have {self.mine()} already.")
        for path in sorted(self.released().rglob("*")):
            there = self.mine() / path.relative_to(self.released())
            if path.is_file() and not there.exists():
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, there)
        self.log.info("Fetched as: %s", self.mine())


class ExchangeSubmit(Exchange, abc.ExchangeSubmit):
    """Handing in, as on the course's page: it waits until there is a receipt."""

    def copy_files(self):
        source, home = self.mine(), Path.home().resolve()
        if not source.is_dir():
            self.fail(f"There is no folder {source}.")
        if not source.is_relative_to(home):
            self.fail(f"{source} is not in your home; hand in from there.")
        wanted = {one.name for one in self.released().glob("*.ipynb")}
        missing = sorted(wanted - {one.name for one in source.glob("*.ipynb")})
        if missing and self.strict:
            self.fail(f"Not handed in, these are missing: {', '.join(missing)}.")
        if missing:
            self.log.warning("These notebooks are missing: %s", ", ".join(missing))
        path = f"handins/{quote(self.assignment)}"
        row = self.ask("POST", path, {"path": str(source.relative_to(home))})
        until = time.monotonic() + self.wait
        while row["state"] not in ("kept", "refused") and time.monotonic() < until:
            time.sleep(0.5)
            row = self.ask("GET", f"handed-in/{row['id']}")
        if row["state"] == "refused":
            self.fail(f"Not handed in: {row['message']}")
        if row["state"] != "kept":
            self.log.warning(
                "Asked at %s, and not read yet: see the course’s page.", row["asked_at"]
            )
            return
        late = ", late" if row["late"] else ""
        self.log.info(
            "Handed in as: %s %s %s%s (%s files, sha256 %s)",
            *(self.course, row["handin"], row["asked_at"], late, row["files"], row["digest"]),
        )


class ExchangeList(Exchange, abc.ExchangeList):
    """What is released; ``cached``: what one has handed in; ``inbound``: what all have."""

    def start(self):
        if self.remove:
            self.fail("What was released or handed in is not removed from here.")
        return super().start()

    def copy_files(self):
        """Nothing is copied."""

    def list_files(self):
        found = self._released() if not (self.inbound or self.cached) else self._handed_in()
        if not found:
            self.log.info("Nothing.")
        return found

    def _released(self):
        found = []
        folder = self.of_course("files", RELEASED)
        for path in sorted(one for one in folder.glob("*") if one.is_dir()):
            if self.assignment not in ("", ".", path.name):
                continue
            mine = Path(self.assignment_dir).resolve() / path.name
            at = mine if mine.exists() else path
            notebooks = [
                {"notebook_id": one.stem, "path": str(one)} for one in sorted(at.glob("*.ipynb"))
            ]
            status = "fetched" if mine.exists() else "released"
            found.append(
                {
                    "course_id": self.course,
                    "assignment_id": path.name,
                    "status": status,
                    "path": str(at),
                    "notebooks": notebooks,
                }
            )
            self.log.info("%s %s%s", self.course, path.name, " (fetched)" if mine.exists() else "")
        return found

    def _handed_in(self):
        rows = self._of_all() if self.inbound else self._own()
        groups = {}
        for student, assignment, at, folder, state in rows:
            if self.assignment not in ("", ".", assignment):
                continue
            one = {
                "course_id": self.course,
                "student_id": student,
                "assignment_id": assignment,
                "timestamp": at,
                "status": "submitted",
                "path": folder,
                "notebooks": [],
                "has_local_feedback": False,
                "has_exchange_feedback": False,
                "feedback_updated": False,
                "local_feedback_path": None,
            }
            key = ("course_id", "student_id", "assignment_id", "status")
            found = groups.setdefault(
                (student, assignment), {**{k: one[k] for k in key}, "submissions": []}
            )
            found["submissions"].append(one)
            self.log.info("%s %s %s %s %s", self.course, student, assignment, at, state)
        return list(groups.values())

    def _own(self):
        for due in self.ask("GET", "handins")["handins"]:
            for row in due["handed_in"]:
                yield row["username"], row["handin"], row["asked_at"], "", row["state"]

    def _of_all(self):
        for student, handin, at, folder in handed_in(self.of_course("handins")):
            yield student, handin, at, str(folder), "kept"


def handed_in(area: Path):
    """All that was handed in, as a course's instructors read it: for whom, what, when and where.

    The oldest first.
    """
    found = []
    for path in area.glob("*/*/*/receipt.json"):
        said = json.loads(path.read_bytes())["receipt"]
        for member in said["members"]:
            found.append((member, said["handin"], said["asked_at"], path.parent / "files"))
    return sorted(found, key=lambda one: one[2])


class ExchangeCollect(Exchange, abc.ExchangeCollect):
    """The newest of each into the folder of nbgrader's that it grades from."""

    def copy_files(self):
        newest = {}
        for student, handin, at, folder in handed_in(self.of_course("handins")):
            if handin == self.assignment and self.coursedir.student_id in ("*", "", student):
                newest[student] = (at, folder)
        if not newest:
            self.log.warning(
                "Nothing was handed in for %s, or you may not read it.", self.assignment
            )
        for student, (at, folder) in sorted(newest.items()):
            submitted = self.coursedir.submitted_directory
            target = Path(self.coursedir.format_path(submitted, student, self.assignment))
            stamp = target / "timestamp.txt"
            if stamp.is_file() and stamp.read_text().strip() == at:
                continue
            if target.exists() and not self.update:
                self.log.info("%s: there already; --update takes the newer one.", student)
                continue
            shutil.rmtree(target, ignore_errors=True)
            self.lay(folder, target)
            stamp.write_text(at)
            self.log.info("Collected: %s %s %s", student, self.assignment, at)


class ExchangeReleaseFeedback(Exchange, abc.ExchangeReleaseFeedback):
    """A folder for the course's page: giving feedback is a person's to do, and no server's."""

    def copy_files(self):
        made = Path(
            self.coursedir.format_path(self.coursedir.feedback_directory, "*", "x")
        ).parents[1]
        target = Path.home() / f"feedback-{self.course}-{self.assignment}"
        students = [one.name for one in sorted(made.glob("*")) if (one / self.assignment).is_dir()]
        if not students:
            self.fail(f"There is no feedback; run “nbgrader generate_feedback {self.assignment}”.")
        for student in students:
            shutil.rmtree(target / student, ignore_errors=True)
            self.lay(made / student / self.assignment, target / student)
        self.log.info(
            "Feedback of %s students is in ~/%s. Give it to them on the course’s page “Who has "
            "handed in”: a server may not.",
            *(len(students), target.name),
        )


class ExchangeFetchFeedback(Exchange, abc.ExchangeFetchFeedback):
    """One's own, beside one's own copy of the assignment."""

    def copy_files(self):
        user = os.environ.get("JUPYTERHUB_USER") or os.environ.get("USER", "")
        source = self.of_course("feedback", user, self.assignment, "files")
        if not source.is_dir():
            self.fail(f"There is no feedback for {self.assignment} yet.")
        self.lay(source, self.mine() / "feedback")
        self.log.info("Feedback: %s", self.mine() / "feedback")
