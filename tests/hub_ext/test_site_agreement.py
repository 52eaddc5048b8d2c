"""Hub and agent that have read different site files: said, with the remedy; both go on."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from commons.errors import LabError
from commons.site import site_digest
from commons.work import Periodic
from hub_ext import admin_cli
from hub_ext.site_agreement import compare
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import Node


class Agent(MemoryRuntime):
    """One that has read some site file."""

    digest, memory = "", 2**40

    async def nodes(self) -> list[Node]:
        [node] = await super().nodes()
        changed = {"site_digest": self.digest, "memory": self.memory}
        return [node.model_copy(update=changed)]


async def test_who_has_read_another_site_file_is_named_with_the_remedy_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The kind: two parts of the site that act by different settings say so, and go on."""
    agent = Agent()
    agent.digest = "theirs"

    async def once() -> None:
        await compare(agent, "ours")

    work = Periodic("site file", once, 30, logging.getLogger("hub"), expected=(LabError,))
    await work._round()
    await work._round()
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "agent on here has read another site file" in line
    assert "make up" in line
    agent.digest = "ours"
    await work._round()


@pytest.mark.parametrize("digest", ["ours", ""])
async def test_the_same_file_and_an_agent_that_says_nothing_are_no_news(digest: str) -> None:
    agent = Agent()
    agent.digest = digest
    await compare(agent, "ours")


async def test_a_silent_agent_is_no_news() -> None:
    agent = Agent()
    agent.silence()
    await compare(agent, "ours")


def test_site_check_says_which_agent_goes_by_another_state_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kind: who changed the file and forgot `make up` finds it where they look."""
    file = tmp_path / "site.yaml"
    shutil.copy(Path(__file__).parents[2] / "config/site.yaml", file)
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(file))
    agent = Agent()
    monkeypatch.setattr(admin_cli, "from_environment", lambda timeout: agent)
    monkeypatch.setattr(admin_cli, "_check_groups", lambda _site, _path: [])
    agent.digest = site_digest(file)
    assert "agent" not in CliRunner().invoke(admin_cli.check).output
    file.write_text(file.read_text() + "# changed\n")
    done = CliRunner().invoke(admin_cli.check)
    assert "the agent on here goes by another site file" in done.output
    assert "make up" in done.output
    assert done.exit_code == 0
    shown = json.loads(CliRunner().invoke(admin_cli.check, ["--json"]).stdout)
    assert shown["agents_differ"] == ["here"]
    # Another file than the site's, and without asking anybody.
    for words in ([str(file)], ["--offline"]):
        done = CliRunner().invoke(admin_cli.check, words)
        assert (done.exit_code, "agent" in done.output) == (0, False)


@pytest.mark.parametrize(
    ("changed", "fitting", "words"),
    [
        ({}, {"small": 24, "large": 0}, "none of size large can run at once: each counts with 32"),
        ({"sizes": {"large": {"memory": "8G"}}}, {"small": 24, "large": 3},
         "only 3 of size large can run at once: each counts with 8 GiB of memory, all together "
         "have 24 GiB; say in sizes.large.guarantee what"),
        ({"sizes": {"large": {"guarantee": "2G"}}}, {"small": 24, "large": 12}, ""),
        ({"sizes": {"large": {"guarantee": "8G"}}}, {"small": 24, "large": 3}, ""),
        ({"servers": {"machine": {"memory": "512G"}}}, {"small": 512, "large": 16}, ""),
        ({"servers": {"machine": {"memory": "512G", "cpu": 4}}}, {"small": 2, "large": 0},
         "no server of size large can start: servers.machine allows less than one"),
        ({"servers": {"machine": {"memory": "512G", "servers": 5}}}, {"small": 5, "large": 5}, ""),
    ],
)  # fmt: skip
def test_site_check_says_how_many_servers_fit_and_what_to_do_about_few(
    changed: dict[str, Any], fitting: dict[str, int], words: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Kind: a site whose sizes count with all of their memory, on a machine of 24 GiB."""
    said = yaml.safe_load((Path(__file__).parents[2] / "config/site.yaml").read_text())
    for section, keys in changed.items():
        for key, more in keys.items():
            said.setdefault(section, {}).setdefault(key, {}).update(more)
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    agent = Agent()
    agent.memory = 24 * 2**30
    monkeypatch.setattr(admin_cli, "from_environment", lambda timeout: agent)
    monkeypatch.setattr(admin_cli, "_check_groups", lambda _site, _path: [])
    file = str(tmp_path / "site.yaml")
    shown = json.loads(CliRunner().invoke(admin_cli.check, [file, "--json"]).stdout)
    assert shown["fitting"] == fitting
    assert len(shown["advice"]) == bool(words)
    done = CliRunner().invoke(admin_cli.check, [file])
    assert done.exit_code == 0
    assert f"small {fitting['small']}, large {fitting['large']}" in done.output
    assert words in done.output
    # Without an agent there is nothing to say of a machine, and nothing wrong.
    for asked in ([file, "--offline"], [file]):
        agent.silence()
        shown = json.loads(CliRunner().invoke(admin_cli.check, [*asked, "--json"]).stdout)
        assert (shown["fitting"], shown["advice"]) == ({}, [])
