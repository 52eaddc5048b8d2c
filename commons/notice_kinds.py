"""What people are told, by code: the level, the sentence, and what can be done about it.

A notice is added by code (``commons.notices``). Sentences begin with what matters: JupyterLab shows
140 characters before a button opens the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from commons.i18n import N_

Level = Literal["info", "warning", "error"]
Action = Literal["extend", "keep", "open", "refuse", "answer"]


@dataclass(frozen=True)
class NoticeKind:
    """One sort of notice.

    Attributes:
        actions: what the person can do about it with a button.
        upcoming: of something that is going to happen: no longer shown once the lease is over.
        topic: of several about one thing of one lease, only the newest is shown.
        mailed: whether it is worth a mail; what only concerns who sits there is not.
        ended: it says why a server has ended: shown on its page until it runs again.
        until: the name in the data of a time (seconds since 1970) after which it is not shown.
        otherwise: the sentences to take, in this order, where a field of those before is not known.
        remedy: what to do, below the sentence and what else there is to say.
    """

    level: Level
    sentence: str
    actions: tuple[Action, ...] = ()
    mailed: bool = True
    upcoming: bool = False
    topic: str = ""
    ended: bool = False
    until: str = ""
    otherwise: tuple[str, ...] = ()
    remedy: str = ""


# Placeholders that end in ``_at`` are seconds since 1970, in the data and shown as a time; those
# that end in ``_for`` are seconds, shown as a duration; those that end in ``_bytes`` are bytes.
KINDS: Mapping[str, NoticeKind] = {
    "granted": NoticeKind(
        "info",
        N_(
            "Your GPUs are there: the server has started. "
            "Open it before {open_by_at}, or they go to the next."
        ),
        upcoming=True,
    ),
    "not_opened": NoticeKind(
        "warning",
        N_("Nobody opened the server for {open_for} after its GPUs were granted: it was stopped."),
        otherwise=(N_("Nobody opened the server after its GPUs were granted, so it was stopped."),),
        remedy=N_("Start it again, and open it when you are told that the GPUs are there."),
        ended=True,
    ),
    "ends_soon": NoticeKind(
        "warning",
        N_("The server ends at {ends_at}: its time limit is over then. Save your work, or extend."),
        ("extend",),
        upcoming=True,
        topic="end",
    ),
    "time_limit": NoticeKind(
        "info",
        N_(
            "The server was stopped: its time limit of {limit_for} was over. "
            "Your files are all there."
        ),
        otherwise=(
            N_("The server was stopped: its time limit was over. Your files are all there."),
        ),
        remedy=N_(
            "Start it again. If the work takes longer, choose a longer time limit, or extend it "
            "before it ends."
        ),
        ended=True,
    ),
    "idle_warning": NoticeKind(
        "warning",
        N_(
            "The GPUs have not been used for {idle_for} (work on the CPU counts for a while). Use "
            "or keep them, or the server stops at {stop_at}."
        ),
        ("keep",),
        upcoming=True,
        topic="idle",
    ),
    "idle_resumed": NoticeKind(
        "info",
        N_("The server stays: its GPUs are in use again, or nobody waits for them any more."),
        mailed=False,
        upcoming=True,
        topic="idle",
    ),
    "idle": NoticeKind(
        "info",
        N_(
            "The server was stopped, because its GPUs had not been used for {idle_for}. "
            "Your files are all there."
        ),
        otherwise=(
            N_("The server was stopped, because its GPUs were not used. Your files are all there."),
        ),
        remedy=N_("Start it again when you need its GPUs, or without GPUs for other work."),
        ended=True,
    ),
    "environment_holes": NoticeKind(
        "warning",
        N_("{environment}, which you use, has known security holes: {holes}."),
        remedy=N_(
            "Take a newer version where there is one; an environment of your own is built anew "
            "with newer packages. What runs goes on."
        ),
    ),
    "kept": NoticeKind(
        "info",
        N_("The server is not stopped for idle GPUs before {keep_until_at}."),
        mailed=False,
        upcoming=True,
        topic="idle",
    ),
    "preempted_soon": NoticeKind(
        "warning",
        N_(
            "The GPUs were borrowed from {account}, who needs them: the server ends at {stop_at}. "
            "Save your work."
        ),
        upcoming=True,
        topic="end",
    ),
    "reclaim_withdrawn": NoticeKind(
        "info",
        N_("The borrowed GPUs are not needed back any more: the server goes on."),
        upcoming=True,
        topic="end",
    ),
    "reservation_unkept": NoticeKind(
        "warning",
        N_("The reservation “{name}” of {start_at} cannot be kept as things are."),
        remedy=N_("Choose another time or other GPUs, or end what is in the way."),
        until="start_at",
    ),
    "preempted": NoticeKind(
        "info",
        N_(
            "The server was stopped: its GPUs, borrowed from {account}, went back. "
            "Your files are all there."
        ),
        otherwise=(
            N_(
                "The server was stopped: its borrowed GPUs went back to their owner. "
                "Your files are all there."
            ),
        ),
        remedy=N_("Start it again: it waits until GPUs are free."),
        ended=True,
    ),
    "gpu_lost": NoticeKind(
        "error",
        N_(
            "A GPU of the server has failed ({devices}). "
            "Save your work and start the server again to get another one."
        ),
        otherwise=(
            N_(
                "A GPU of the server has failed. "
                "Save your work and start the server again to get another one."
            ),
        ),
        upcoming=True,
    ),
    "gpu_failed": NoticeKind(
        "error",
        N_("The server was stopped: a GPU of it had failed ({devices}). Your files are all there."),
        otherwise=(
            N_("The server was stopped: a GPU of it had failed. Your files are all there."),
        ),
        remedy=N_("Start it again: it gets another one."),
        ended=True,
    ),
    "gpu_failing": NoticeKind(
        "warning",
        N_(
            "A GPU’s results may be wrong ({devices}): save your work and start the server again. "
            "It reports: {reason}."
        ),
        otherwise=(
            N_(
                "A GPU’s results may be wrong ({devices}): save your work and start the server "
                "again."
            ),
            N_("A GPU’s results may be wrong: save your work and start the server again."),
        ),
    ),
    "gpus_out_of_reach": NoticeKind(
        "error",
        N_(
            "The server no longer reaches its GPUs; something on the machine took them away. "
            "Save your work and start the server again."
        ),
        upcoming=True,
    ),
    "stopping": NoticeKind(
        "warning", N_("The server ends at {stop_at}. Save your work."), upcoming=True, topic="end"
    ),
    # Why a server has ended that nobody of the above stopped.
    "ended": NoticeKind(
        "warning",
        N_("The server ended by itself (exit code {exit_code}). Your files are all there."),
        otherwise=(N_("The server ended by itself. Your files are all there."),),
        remedy=N_("Start it again. If it ends again, tell an administrator what is said here."),
        ended=True,
    ),
    "out_of_memory": NoticeKind(
        "error",
        N_(
            "The server was ended: its memory was full ({limit_bytes} of {limit_bytes} used). "
            "Your files are all there."
        ),
        otherwise=(
            N_(
                "The server needed more memory than its size gives, and was ended. "
                "Start it again with a larger size; your files are all there."
            ),
        ),
        ended=True,
    ),
    "killed": NoticeKind(
        "warning",
        N_("The server was ended from outside, by a signal. Your files are all there."),
        remedy=N_("Start it again. If it ends again, tell an administrator what is said here."),
        ended=True,
    ),
    "removed": NoticeKind(
        "warning",
        N_("The server’s container was removed by somebody. Your files are all there."),
        remedy=N_("Start it again. If it ends again, tell an administrator what is said here."),
        ended=True,
    ),
    "gpus_taken": NoticeKind(
        "error",
        N_(
            "The server was stopped: its GPUs belong to another server by now. "
            "Your files are all there."
        ),
        remedy=N_("Start it again: it waits until GPUs are free."),
        ended=True,
    ),
    "start_failed": NoticeKind(
        "error", N_("The server was not started. Try again."), mailed=False, ended=True
    ),
    "machine": NoticeKind(
        "warning",
        N_("The server ended with its machine, which was restarted. Your files are all there."),
        remedy=N_("Start it again."),
        ended=True,
    ),
    "engine": NoticeKind(
        "warning",
        N_("The server ended when Docker was restarted on its machine. Your files are all there."),
        remedy=N_("Start it again."),
        ended=True,
    ),
    "home_fills": NoticeKind(
        "warning",
        N_("Your home has {used_bytes} of the {limit_bytes} that are allowed."),
        otherwise=(N_("Your home has nearly all that is allowed."),),
        remedy=N_("Delete what you do not need: when it is full, only small servers start."),
        topic="home",
    ),
    "home_full": NoticeKind(
        "error",
        N_("Your home has {used_bytes}, and {limit_bytes} are allowed: only small servers start."),
        otherwise=(N_("Your home has more than is allowed: only small servers start."),),
        remedy=N_("Delete what you do not need; it is looked at again within half an hour."),
        topic="home",
    ),
    "folder_fills": NoticeKind(
        "warning",
        N_("The folder {folder} has {used_bytes} of the {limit_bytes} that are allowed."),
        otherwise=(N_("The folder {folder} has nearly all that is allowed."),),
        remedy=N_("Delete what nobody needs, or ask who keeps the most."),
    ),
    "folder_full": NoticeKind(
        "error",
        N_(
            "The folder {folder} has {used_bytes}, and {limit_bytes} are allowed: who writes in it "
            "starts only small servers."
        ),
        otherwise=(N_("The folder {folder} has more than is allowed."),),
        remedy=N_("Delete what nobody needs, or ask who keeps the most."),
    ),
    "withdrawn": NoticeKind(
        "warning",
        N_(
            "The environment of this server was withdrawn ({environment}: {reason}). The server "
            "goes on; start it with another version."
        ),
        otherwise=(
            N_(
                "The environment of this server was withdrawn ({environment}). The server goes on; "
                "start it with another version."
            ),
        ),
    ),
    "lost_in_restart": NoticeKind(
        "warning",
        N_("The server was not started: the hub was restarted meanwhile. Start it again."),
        mailed=False,
        ended=True,
    ),
    "released": NoticeKind(
        "info",
        N_(
            "A server was started for you ahead of time ({name}). Nobody had opened it by "
            "{hold_until_at}, so it was stopped."
        ),
        otherwise=(
            N_("The server that was started for you ahead of time is not needed any more."),
        ),
        mailed=False,
        ended=True,
    ),
    "stopped_by": NoticeKind(
        "warning",
        N_("{by} stopped the server: “{message}” Your files are all there."),
        otherwise=(
            N_("{by} stopped the server. Your files are all there."),
            N_("An administrator stopped the server. Your files are all there."),
        ),
        ended=True,
    ),
    "look_asked": NoticeKind(
        "warning",
        N_("{by} (course {course}) asks to see a notebook of yours. Allow it for a time, or not."),
        ("answer",),
        mailed=False,
        until="until_at",
    ),
    "look_on": NoticeKind(
        "warning",
        N_("{by} (course {course}) may read {path} until {until_at}."),
        ("answer",),
        mailed=False,
        until="until_at",
    ),
    "course_message": NoticeKind(
        "info",
        N_("{by} (course {course}): “{message}”"),
        mailed=False,
    ),
    "server_message": NoticeKind("info", N_("{by}: “{message}”"), mailed=False),
    "maintenance": NoticeKind(
        "warning",
        N_("The server was stopped for maintenance. Your files are all there."),
        remedy=N_("Start it again when the maintenance is over."),
        ended=True,
    ),
    "maintenance_soon": NoticeKind(
        "warning",
        N_("The server is stopped for maintenance at {stop_at}. Save your work."),
        topic="maintenance",
        until="stop_at",
    ),
    "stops_soon": NoticeKind(
        "warning",
        N_("{by} stops the server at {stop_at}: “{message}” Save your work."),
        otherwise=(N_("{by} stops the server at {stop_at}. Save your work."),),
        until="stop_at",
    ),
    "stopped": NoticeKind(
        "info", N_("The server was stopped. Your files are all there."), mailed=False, ended=True
    ),
    # What a server says of itself (hub_ext.console.notice_api).
    "kernel_out_of_memory": NoticeKind(
        "error",
        N_(
            "The kernel of {what} was ended: the server’s memory was full "
            "({limit_bytes} of {limit_bytes} used). Its variables are lost."
        ),
        otherwise=(
            N_(
                "The kernel of {what} was ended: the server’s memory was full. "
                "Its variables are lost."
            ),
            N_("A kernel was ended: the server’s memory was full. Its variables are lost."),
        ),
        mailed=False,
    ),
    "kernel_ended": NoticeKind(
        "error",
        N_("The kernel of {what} ended by itself ({how}). Its variables are lost."),
        otherwise=(
            N_("The kernel of {what} ended by itself. Its variables are lost."),
            N_("A kernel ended by itself. Its variables are lost."),
        ),
        remedy=N_(
            "Run the cells again. If it ends at the same one, a package that is used there fails: "
            "tell whoever looks after the environment."
        ),
        mailed=False,
    ),
    "process_out_of_memory": NoticeKind(
        "error",
        N_(
            "The server’s memory was full ({limit_bytes} of {limit_bytes} used): "
            "processes of {what} were ended ({count})."
        ),
        otherwise=(
            N_(
                "The server’s memory was full ({limit_bytes} of {limit_bytes} used): "
                "processes were ended ({count})."
            ),
            N_("The server’s memory was full: processes were ended ({count})."),
        ),
        mailed=False,
    ),
    "memory_high": NoticeKind(
        "warning",
        N_(
            "The server’s memory is nearly full: {used_bytes} of {limit_bytes}. "
            "When it is full, kernels are ended."
        ),
        otherwise=(N_("The server’s memory is nearly full. When it is full, kernels are ended."),),
        mailed=False,
        topic="memory",
    ),
    "tmp_high": NoticeKind(
        "warning",
        N_(
            "{place} is nearly full: {used_bytes} of {limit_bytes}. "
            "Its files are kept in memory; delete what you do not need."
        ),
        otherwise=(
            N_(
                "{place} is nearly full. Its files are kept in memory; delete what you do not need."
            ),
            N_(
                "A folder in memory (/tmp or /dev/shm) is nearly full: delete what you do not need."
            ),
        ),
        mailed=False,
        topic="tmp",
    ),
    "disk_high": NoticeKind(
        "warning",
        N_(
            "The disk of your home is nearly full: {used_bytes} of {limit_bytes}. "
            "When it is full, files cannot be saved."
        ),
        otherwise=(
            N_("The disk of your home is nearly full. When it is full, files cannot be saved."),
        ),
        mailed=False,
        topic="disk",
    ),
    # Of ``servers.culling``.
    "cull_warning": NoticeKind(
        "warning",
        N_(
            "Nothing has been going on in the server for {idle_for}. Unless something runs, or you "
            "keep it, it is stopped at {stop_at}."
        ),
        ("keep",),
        topic="cull",
        until="stop_at",
    ),
    "cull_resumed": NoticeKind(
        "info",
        N_("The server stays: it is in use again."),
        mailed=False,
        topic="cull",
        until="told_until",
    ),
    "server_kept": NoticeKind(
        "info",
        N_("The server is not stopped for want of use before {keep_until_at}."),
        mailed=False,
        topic="cull",
        until="keep_until_at",
    ),
    "culled": NoticeKind(
        "info",
        N_(
            "The server was stopped, because nothing had been going on in it for {idle_for}. "
            "Your files are all there."
        ),
        otherwise=(
            N_("The server was stopped, because nobody used it. Your files are all there."),
        ),
        remedy=N_("Start it again when you need it."),
        ended=True,
    ),
    "max_age_soon": NoticeKind(
        "warning",
        N_(
            "The server is stopped at {stop_at}: servers of its kind run for {age_for} at most. "
            "Save your work, and start it again then."
        ),
        topic="cull",
        until="told_until",
    ),
    "max_age": NoticeKind(
        "info",
        N_(
            "The server was stopped: it had run for {age_for}, as long as is allowed. "
            "Your files are all there."
        ),
        otherwise=(
            N_(
                "The server was stopped: it had run for as long as is allowed. "
                "Your files are all there."
            ),
        ),
        remedy=N_("Start it again to go on."),
        ended=True,
    ),
    # Of a course's end (courses.term).
    "course_freezes": NoticeKind(
        "info",
        N_(
            "The course {course} is frozen at {freeze_at}: from then on it can be read, and nobody "
            "writes, hands in or starts servers for it."
        ),
        remedy=N_("Another time is written into its course.yaml, under “end”."),
        until="freeze_at",
    ),
    # Of an exam (courses.exam_keeper).
    "exam_until": NoticeKind(
        "info",
        N_("The exam “{exam}” ends for you at {ends_at}. What is open is saved every ten seconds."),
        mailed=False,
        topic="exam",
        until="ends_at",
    ),
    "exam_ends_soon": NoticeKind(
        "warning",
        N_("The exam “{exam}” ends at {ends_at}, in {left_for}: the server stops then. Save."),
        mailed=False,
        topic="exam",
        until="ends_at",
    ),
    "exam_over": NoticeKind(
        "info",
        N_("The exam is over. What was saved in it is with the course’s instructors."),
        ended=True,
        mailed=False,
    ),
    "notebook_sent": NoticeKind(
        "info",
        N_("{sender} sends you the notebook “{name}”, made in {environment}."),
        ("open", "refuse"),
        otherwise=(N_("{sender} sends you the notebook “{name}”."),),
    ),
    "handin_refused": NoticeKind(
        "warning",
        N_("What you handed in as “{handin}” of the course {course} was not taken."),
    ),
    "feedback_given": NoticeKind(
        "info",
        N_("There is feedback on “{handin}” of the course {course}; see its page “Hand in”."),
    ),
    # Of jobs (jobs.records).
    "job_done": NoticeKind("info", N_("The job {job} is done: {command}")),
    "job_not_done": NoticeKind(
        "warning",
        N_("The job {job} did not come to its end: {command}"),
        remedy=N_("The page Jobs has what it printed."),
    ),
    "jobs_over": NoticeKind(
        "info", N_("All of the job {job} is over: {done} of {count} tasks are done. {command}")
    ),
    "folders_missing": NoticeKind(
        "warning",
        N_(
            "This server has started without {folders}: the machine does not have them just now. "
            "Start it again when an administrator has brought them back."
        ),
        mailed=False,
        topic="folders",
    ),
}
