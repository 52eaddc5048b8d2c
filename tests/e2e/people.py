"""What a person does in the browser, step by step, found by what a person sees."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, Page, expect


def log_in(page: Page, name: str, password: str | None = None) -> None:
    page.goto("/")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password", exact=True).fill(password or f"{name}-demo")
    page.get_by_role("button", name="Sign in").click()


def choose(page: Page, environment: str, gpus: int = 0, gpu_type: str = "") -> None:
    """Fill the spawn form."""
    page.goto("/hub/spawn")
    page.locator(f"input[name=environment][data-name='{environment}']").check()
    page.locator(f"input[name=gpus][value='{gpus}']").check()
    if gpu_type:
        page.get_by_label("Type of GPU").select_option(gpu_type)


def start(page: Page) -> None:
    page.get_by_role("button", name="Start", exact=True).click()


def in_lab(page: Page) -> None:
    """Wait for JupyterLab, then for its launcher, without the tabs of earlier visits."""
    page.wait_for_url("**/user/*/lab**", timeout=120_000)
    page.goto(page.url.partition("?")[0] + "?reset")
    expect(page.locator(".jp-Launcher")).to_be_visible(timeout=60_000)


def open_notebook(page: Page, kernel: str) -> None:
    """A new notebook with a kernel, by the name on its card."""
    card = page.locator(".jp-Launcher-section", has_text="Notebook").locator(
        ".jp-LauncherCard", has_text=kernel
    )
    card.first.click()
    named = page.locator(".jp-NotebookPanel-toolbar").get_by_text(kernel)
    expect(named).to_be_visible(timeout=60_000)
    # What is run before the kernel is there does not run.
    expect(page.get_by_text(f"{kernel} | Idle")).to_be_visible(timeout=60_000)


def run_cell(page: Page, code: str) -> str:
    """Run code in the notebook's last cell; its output as text."""
    before = page.locator(".jp-OutputArea-output").count()
    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").last
    cell.click()
    page.keyboard.insert_text(code)
    page.keyboard.press("Shift+Enter")
    output = page.locator(".jp-OutputArea-output").nth(before)
    expect(output).to_be_visible()
    return output.inner_text()


def come_back(page: Page, words: str) -> Locator:
    """Come back to JupyterLab, which then looks for news; the notification with these words."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    return page.locator(".Toastify__toast", has_text=words)


def log_out(page: Page) -> None:
    page.goto("/hub/home")
    page.get_by_role("link", name="Sign out").or_(
        page.get_by_role("button", name="Sign out")
    ).click()


def picture(page: Page, folder: Path, name: str) -> None:
    page.screenshot(path=str(folder / f"{name}.png"))
