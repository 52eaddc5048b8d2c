"""What people are told, in their language, wherever the sentence comes from."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from kernels import prefix, words
from kernels.discovery import Discovery, Source
from kernels.words import CHINESE, catalogue, in_language, persons_language, say
from tests.kernels.conftest import write_kernel, write_notes

KERNELS = Path(words.__file__).parent
LAB = "lab/user-settings/@jupyterlab/translation-extension/plugin.jupyterlab-settings"


def said_in_the_code() -> set[str]:
    """The first argument of every call of ``say``."""
    found = set()
    for file in KERNELS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say":
                sentence = node.args[0]
                assert isinstance(sentence, ast.Constant), f"{file}:{node.lineno}: not a literal"
                found.add(str(sentence.value))
    return found


def test_every_sentence_of_the_code_is_in_the_catalogue_and_none_besides() -> None:
    document = json.loads((KERNELS / f"locale/{CHINESE}.json").read_text("utf-8"))
    assert set(document["sentences"]) == said_in_the_code()


@pytest.mark.parametrize("sentence", sorted(catalogue(CHINESE)))
def test_a_sentence_is_known_again_by_its_words_and_keeps_its_values(sentence: str) -> None:
    fields = words._FIELD.findall(sentence)
    values = {name: f"/opt/{name} a (b) c.d" for name in fields}
    spoken = in_language(CHINESE)(say(sentence, **values))
    assert any("一" <= character <= "鿿" for character in spoken)
    for value in values.values():
        assert value in spoken


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
    spoken = {e.place.environment: in_language(CHINESE)(e.reason) for e in environments}
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
    "text", ["", "CVE-2026-1: do not use; ask Bob", "x" * 30_000, "{", "{0}", "a; b; " * 500]
)
def test_what_somebody_wrote_stays_as_it_is(text: str) -> None:
    assert in_language(CHINESE)(text) == text
    assert in_language("en")(text) == in_language("tlh")(text) == text


def test_a_name_that_is_a_word_of_ours_is_not_translated() -> None:
    assert "withdrawn" in in_language(CHINESE)(say("{name} is not a file", name="withdrawn"))


def test_hostile_texts_take_no_time_to_look_up() -> None:
    """Patterns with several fields must not go through all ways to divide a text."""
    for text in (
        " was withdrawn (" * 60 + prefix.away("x") * 5 + "); choose" * 60,
        "it was withdrawn (" * 300 + "or another kernel",
        "it; " * 2000,
    ):
        assert in_language(CHINESE)(text) == text


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
