"""What people are told, in their language, wherever the sentence comes from."""

from __future__ import annotations

import ast
import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import messages
from kernels.discovery import Discovery, Source
from kernels.messages import (
    CHINESE,
    ENGLISH,
    Message,
    catalogue,
    persons_language,
    say,
    why,
)
from tests.kernels.conftest import write_kernel, write_notes

KERNELS = Path(messages.__file__).parent
# The other parts of a server have their words from here.
SERVER = KERNELS.parent / "config/images/server"
LAB = "lab/user-settings/@jupyterlab/translation-extension/plugin.jupyterlab-settings"


def said_in_the_code() -> set[str]:
    """The first argument of every call of ``say``."""
    found = set()
    for file in (*KERNELS.rglob("*.py"), *SERVER.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say":
                code = node.args[0]
                if file == Path(messages.__file__) and not isinstance(code, ast.Constant):
                    continue  # of the system's errors
                assert isinstance(code, ast.Constant), f"{file}:{node.lineno}: not a literal"
                found.add(str(code.value))
    return found


def test_every_code_has_words_in_every_language_and_there_are_none_besides() -> None:
    english, chinese = (catalogue(language) for language in (ENGLISH, CHINESE))
    assert english.keys() == chinese.keys()
    said = {code for code in english if not hasattr(errno, code)}
    assert said == said_in_the_code() | {"between_names", "between_sentences"}
    for code, text in english.items():
        assert sorted(set(messages._FIELD.findall(text))) == sorted(
            set(messages._FIELD.findall(chinese[code]))
        ), code


def test_every_call_gives_the_values_that_the_words_have() -> None:
    for file in KERNELS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "say":
                continue
            given = {keyword.arg for keyword in node.keywords}
            if None not in given and isinstance(node.args[0], ast.Constant):
                text = catalogue(ENGLISH)[str(node.args[0].value)]
                assert given == set(messages._FIELD.findall(text)), f"{file}:{node.lineno}"


@pytest.mark.parametrize("code", sorted(catalogue(ENGLISH)))
def test_a_message_keeps_its_values_in_every_language(code: str) -> None:
    fields = messages._FIELD.findall(catalogue(ENGLISH)[code])
    values = {name: f"/opt/{name} {{a}} (b) c.d %s" for name in fields}
    for language in (ENGLISH, CHINESE):
        spoken = say(code, **values).in_words(language)
        for value in values.values():
            assert value in spoken


def test_the_systems_errors_are_known_by_their_numbers() -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert why(error) == say("ENOSPC")
    assert str(why(error)) == "No space left on device"
    assert str(why(OSError(errno.EINVAL, "Not a file"))) == "Not a file"


PARAMS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=("C", "Z")), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.builds(lambda value: say("kernel_problem", name=value, why=value), inner)
    ),
    max_leaves=5,
)


@given(PARAMS)
def test_a_message_survives_json(value: object) -> None:
    message = say("not_a_file", name=value)
    found = Message.from_json(json.loads(json.dumps(message.as_json(CHINESE))))
    assert found == message or found.in_words(CHINESE).count("–")  # what is nested too deeply


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["code", "data", "sentence", "x"]), inner)
            | st.fixed_dictionaries({"code": st.sampled_from(["several", "it"]), "data": inner})
        ),
    )
)
def test_whatever_a_cache_has_in_it_can_be_said(found: object) -> None:
    message = Message.from_json(found)
    again = Message.from_json(json.loads(json.dumps(message.as_json())))
    assert again.in_words(CHINESE) == message.in_words(CHINESE)


def test_much_and_deep_is_cut() -> None:
    deep: object = "x"
    for _ in range(10_000):
        deep = {"code": "several", "data": {"all": [deep, deep]}}
    wide: object = "y" * 2**20
    for _ in range(4):
        wide = {"code": "several", "data": {"all": [wide] * 50}}
    for found in (deep, wide, {"code": "c" * 2**20, "sentence": "s" * 2**20}):
        assert len(str(Message.from_json(found))) <= messages._SENTENCE


def test_what_an_older_server_has_said_stays_as_it_is() -> None:
    assert Message.from_json("no kernel is installed; {x}").in_words(CHINESE).endswith("{x}")


def test_reasons_as_they_are_found_leave_no_english_behind(make_prefix, roots, as_nobody) -> None:
    make_prefix("bare", kernel=None)
    write_kernel(make_prefix("bad", kernel=b"{"), {"argv": ["/bin/sh"]}, "two")
    make_prefix("gone", kernel={"argv": ["gone"]})
    (make_prefix("half") / "conda-meta/history").unlink()
    (make_prefix("closed") / "conda-meta").chmod(0)
    write_notes(make_prefix("old"), '{"version": "3", "withdrawn": "CVE-2026-1"}')
    with as_nobody():
        environments = Discovery().scan([Source("image", f"{roots}/envs/*")])
    (roots / "envs/closed/conda-meta").chmod(0o755)
    spoken = {e.place.environment: e.reason.in_words(CHINESE) for e in environments}
    envs = f"{roots}/envs"
    assert spoken == {
        "bad": "内核 python3：kernel.json 不是有效的 JSON（第 1 行，第 2 列）；"
        "内核 two：kernel.json 的 argv 启动 '/bin/sh'，它不在该环境内",
        "bare": "其中没有安装内核；请把 ipykernel 加入它的 environment.yml 并重新构建，"
        f"或在有 conda 的地方运行：conda install --prefix {envs}/bare ipykernel",
        "closed": "您没有读取它的权限；请向其维护者申请读取权限",
        "gone": f"内核 python3：无法启动其程序 {envs}/gone/bin/gone：没有该文件或文件夹",
        "half": f"其安装没有完成（缺少 {envs}/half/conda-meta/history）；"
        f"请等待安装完成，或删除 {envs}/half 后重新创建该环境",
        "old": "其版本 3 已撤回（CVE-2026-1）；如有更新的版本请选用（停止服务器，"
        "再用新版本启动），否则请选择其他内核",
    }


@pytest.mark.parametrize(
    ("lab", "environ", "language"),
    [
        ("", {}, "en"),
        ("", {"LANG": "zh_CN.UTF-8"}, CHINESE),
        ("", {"LANG": "C.UTF-8", "LABCOMMONS_LANGUAGE": "zh_CN"}, CHINESE),
        ("", {"LANG": "zh_CN.UTF-8", "LABCOMMONS_LANGUAGE": "en"}, "en"),
        (
            '{\n    // "locale": "en"\n    "locale": "zh_CN"\n}',
            {"LABCOMMONS_LANGUAGE": "en"},
            CHINESE,
        ),
        ('{"locale": "en"}', {"LABCOMMONS_LANGUAGE": "zh_CN"}, "en"),
        ('{"locale": "default"}', {"LABCOMMONS_LANGUAGE": "zh_CN"}, CHINESE),
        ('{"locale": ', {"LABCOMMONS_LANGUAGE": "zh_CN"}, CHINESE),
    ],
)
def test_jupyterlabs_menu_then_the_hub_then_the_locale_decides(
    tmp_path, lab, environ, language
) -> None:
    if lab:
        (tmp_path / LAB).parent.mkdir(parents=True)
        (tmp_path / LAB).write_text(lab)
    assert persons_language({"JUPYTER_CONFIG_DIR": str(tmp_path), **environ}) == language
