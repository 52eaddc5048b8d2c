// Somebody who is logged in opens a page of somebody else's server, in a real browser.
// node victim.mjs MODULES BROWSER PROGRAM ORIGIN -> one line of JSON: what that page got.
import { createRequire } from "node:module";

const [modules, browserName, program, origin] = process.argv.slice(2);
const puppeteer = createRequire(`${modules}/`)("puppeteer-core").default;
const browser = await puppeteer.launch({
  browser: browserName,
  executablePath: program,
  headless: true,
  args: browserName === "chrome" ? ["--no-sandbox", "--disable-gpu", "--disable-quic"] : [],
  extraPrefsFirefox: { "dom.disable_open_during_load": false, "dom.popup_maximum": 100 },
});
try {
  const page = await browser.newPage();
  const open = (path) => page.goto(origin + path, { waitUntil: "load", timeout: 30000 });
  await open("/hub/login");
  await page.type("input[name=username]", "s12");
  await page.type("input[name=password]", "demo");
  await Promise.all([page.waitForNavigation(), page.click("button[type=submit].btn-primary")]);
  // What is seen once may be kept by the browser.
  for (const path of ["/hub/home", "/hub/token", "/services/labcommons/", "/services/kernels/"]) await open(path);
  await open("/user/s10/evil");
  // Not by frames that are drawn: the page is behind its popups.
  await page.waitForFunction("window.done", { timeout: 60000, polling: 250 }).catch(() => {});
  const found = await page.evaluate("window.found");
  found.asked = {};
  for (const to of ["/hub/logout", "/hub/spawn/s12?opt-environment=evil", "/hub/spawn/s12/fresh"]) {
    await open(`/user/s10/go?to=${encodeURIComponent(to)}`);
    await page.waitForFunction(() => !location.pathname.startsWith("/user/"), { timeout: 20000, polling: 250 });
    found.asked[to] = await page.evaluate(() => Boolean(document.getElementById("go-on")));
  }
  await open("/hub/home");
  found.home = await page.evaluate("location.pathname");
  console.log(JSON.stringify(found));
} finally {
  await browser.close();
}
