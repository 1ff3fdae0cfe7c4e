"""The console in Chromium: two users of a gated registry, a phone, dark colours, and the keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.conftest import GatedConsole
from tests.support.browser import PageLog, contrast, opened
from tests.support.consoles import running_console
from tests.support.servers import example
from tests.support.tracking_servers import account

NAME = "iris"


def sign_in(page: Page, address: str, user: str) -> None:
    page.goto(address)
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(account(user)["MLFLOW_TRACKING_PASSWORD"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Models")).to_be_visible()


def expect_no_sideways_scrolling(page: Page) -> None:
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    whole, shown = page.evaluate(widths)
    assert whole <= shown, page.url


@pytest.mark.slow
def test_two_users_promote_and_a_third_rolls_back(browser: Browser, console: GatedConsole) -> None:
    gated, address = console.gated, console.address
    gated.train()
    gated.evaluate(NAME, 1)
    gated.request("trainer", NAME, 1)
    gated.decide("ana", NAME, 1)
    assert gated.move("trainer", NAME, 1).status_code == 200
    gated.train("--model", "knn")
    gated.evaluate(NAME, 2)
    log = PageLog()
    with opened(browser, log) as trainer, opened(browser, log) as ben, opened(browser, log) as oncall:
        sign_in(trainer, address, "trainer")
        trainer.get_by_role("link", name=NAME, exact=True).click()
        versions = trainer.get_by_role("region", name="versions")
        versions.get_by_role("link", name="version 2", exact=True).click()
        expect(trainer.get_by_text("nobody requested it")).to_be_visible()
        trainer.get_by_label("Reason").fill("neighbours do better on new flowers")
        trainer.get_by_role("button", name="Request production").click()
        expect(trainer.get_by_role("status")).to_have_text(
            f"You requested production for version 2 of {NAME}."
        )
        expect(trainer.get_by_role("button", name="Approve")).to_have_count(0)

        sign_in(ben, address, "ben")
        ben.get_by_role("link", name="Requests").click()
        ben.get_by_role("link", name=f"{NAME} version 2 for production").click()
        expect(ben.get_by_text("neighbours do better on new flowers")).to_be_visible()
        expect(ben.get_by_role("region", name="gates").get_by_text("✓ passed").first).to_be_visible()
        ben.get_by_role("link", name="Compare with version 1").click()
        expect(ben.get_by_role("heading", name="iris 2 compared with iris 1")).to_be_visible()
        ben.go_back()
        ben.get_by_label("Reason").fill("read the comparison")
        ben.get_by_role("button", name="Approve").click()
        expect(ben.get_by_text("All conditions are met")).to_be_visible()

        trainer.reload()
        trainer.get_by_role("button", name="Promote to production").click()
        expect(trainer.get_by_role("status")).to_have_text(f"production of {NAME} is now version 2.")
        assert gated.aliases(NAME)["production"] == 2

        sign_in(oncall, address, "oncall")
        oncall.get_by_role("link", name="production → 2").click()
        roll_back = oncall.locator("form").filter(has=oncall.get_by_role("heading", name="Roll back"))
        roll_back.get_by_label("Reason").fill("wrong on setosa")
        roll_back.get_by_role("button").click()
        expect(oncall.get_by_role("status")).to_contain_text("is back at version 1")
        newest = oncall.get_by_role("listitem").filter(has_text="wrong on setosa").first
        expect(newest).to_contain_text("by oncall")
        assert gated.aliases(NAME)["production"] == 1

        oncall.get_by_role("button", name="Sign out").click()
        expect(oncall.get_by_role("heading", name="Sign in")).to_be_visible()
        oncall.go_back()
        expect(oncall.get_by_role("heading", name="Sign in")).to_be_visible()
    assert not log.errors
    assert not log.outside


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The console of the example store, which has no users."""
    folder = tmp_path_factory.mktemp("example")
    with (
        example(folder / "server.log") as registry,
        running_console(registry, folder / "console.log") as address,
    ):
        yield address


PATHS = (
    "/",
    "/requests",
    "/models/iris",
    "/models/iris/stages/production",
    "/models/iris/versions/5/production",
)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_readable_on_a_phone(
    page: Page, page_log: PageLog, read_only: str, scheme: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    grounds = set()
    for path in PATHS:
        page.goto(f"{read_only}{path}")
        expect(page.get_by_role("main")).to_be_visible()
        expect_no_sideways_scrolling(page)
        assert contrast(page) >= 4.5, path
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"}
    assert not page_log.errors
    assert not page_log.outside


@pytest.mark.slow
def test_forms_are_readable_on_a_phone_and_usable_by_keyboard(
    page: Page, page_log: PageLog, console: GatedConsole
) -> None:
    name = console.gated.model("one", "two")
    console.gated.evaluate(name, 1)
    console.gated.request("trainer", name, 1)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{console.address}/models/{name}/versions/1/production")
    expect(page.get_by_label("Name")).to_be_focused()
    expect_no_sideways_scrolling(page)
    page.keyboard.type("ana")
    page.keyboard.press("Tab")
    page.keyboard.type(account("ana")["MLFLOW_TRACKING_PASSWORD"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="version 1 for production")).to_be_visible()
    expect_no_sideways_scrolling(page)
    assert contrast(page) >= 4.5

    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["x"] >= 0  # it is on the screen while it has the focus
    page.keyboard.press("Enter")
    reason = page.get_by_label("Reason")
    for _ in range(10):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        if reason.evaluate("each => each === document.activeElement"):
            break
    page.keyboard.type("read on the train")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Approve")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("You approved version 1")
    expect(page.get_by_role("listitem").filter(has_text="read on the train")).to_contain_text("by ana")
    assert not page_log.errors
