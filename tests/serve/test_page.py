"""The web page in headless Chromium, driven over its debugging protocol. Screenshots go to the test's folder, or to --shots."""
import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import urllib.request

import pytest
import websockets

from conftest import running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian package chromium): the page was NOT tested")


class Page:
    """One tab."""

    def __init__(self, socket):
        self.socket = socket
        self.number = 0
        self.told = []  # exceptions and console errors

    async def call(self, method, **params):
        self.number += 1
        await self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(await self.socket.recv())
            if message.get("method") == "Runtime.exceptionThrown" or (
                    message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error"):
                self.told.append(message["params"])
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    async def run(self, script):
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, script, seconds=30):
        for _ in range(seconds * 20):
            if await self.run(script):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never came true: {script}; " + await self.run("document.body.innerText.slice(0, 2000)"))

    async def key(self, key, code=0, text=""):
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, text=text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def say(self, text):
        await self.call("Input.insertText", text=text)
        await self.key("Enter", 13, "\r")

    async def shot(self, path):
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"]))


def in_a_browser(url, scheme, act):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}",
             "--no-first-run", "--disable-background-networking", "--window-size=1280,800", "about:blank"],
            stderr=subprocess.PIPE, text=True)
        try:
            for line in browser.stderr:
                if "DevTools listening on " in line:
                    endpoint = line.split()[-1]
                    break
            port = endpoint.split(":")[2].split("/")[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as tabs:
                tab = next(t for t in json.load(tabs) if t["type"] == "page")["webSocketDebuggerUrl"]

            async def drive():
                async with websockets.connect(tab, max_size=None) as socket:
                    page = Page(socket)
                    await page.call("Runtime.enable")
                    await page.call("Log.enable")
                    await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
                    await page.call("Page.navigate", url=url)
                    await page.until("document.readyState === 'complete' && !!document.querySelector('textarea')")
                    await act(page)
                    assert not page.told, page.told

            asyncio.run(drive())
        finally:
            browser.kill()
            browser.wait()
            browser.stderr.close()


SETTLED = "!document.querySelector('[aria-busy=true]') && document.querySelectorAll('.stats').length >= "


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_conversation_that_branches(program, tmp_path, scheme):
    async def act(page):
        await page.until("document.querySelector('#model').textContent.includes('Austen')")
        assert await page.run("document.activeElement.tagName") == "TEXTAREA"
        await page.run("document.querySelector('.most').value = 40")
        await page.say("It is a truth universally acknowledged, that a single man")
        await page.until(SETTLED + "1")
        await page.say("And what did Elizabeth say?")
        await page.until(SETTLED + "2")
        stats = await page.run("[...document.querySelectorAll('.stats')].map(s => s.textContent)")
        assert "reused" in stats[1] and not stats[1].startswith("0 reused") and "first token" in stats[1]
        await page.until("document.querySelectorAll('[role=treeitem]').length >= 2")
        # Back to the first answer, by keyboard alone, and another way from there.
        first = await page.run("""(() => { const items = [...document.querySelectorAll('[role=treeitem]')];
            const first = items.find(i => nodes.get(+i.dataset.id).keep === 'requested') || items[0]; first.focus(); return +first.dataset.id })()""")
        await page.key("Enter", 13, "\r")
        await page.until(f"current.head === {first} && document.querySelectorAll('.turn').length === 2")
        await page.run("current.input.focus()")
        await page.say("And what did her mother say?")
        await page.until(SETTLED + "1")
        await page.until("[...document.querySelectorAll('[role=treeitem]')].some(i => +i.getAttribute('aria-level') > 1)")
        # The other branch beside it.
        other = await page.run("""(() => { const replies = [...nodes.values()].filter(n => n.keep === 'requested' && n.id !== current.head);
            const deepest = replies.sort((a, b) => b.tokens - a.tokens)[0]; document.querySelector(`[data-id="${deepest.id}"]`).focus(); return deepest.id })()""")
        await page.key("c", 67, "c")
        await page.until(f"document.querySelectorAll('.pane').length === 2 && panes[1].head === {other} && panes[1].log.children.length === 4")
        await page.shot(tmp_path / f"branches-{scheme}.png")
        print(tmp_path / f"branches-{scheme}.png")

    with running(program, "--quiet") as server:
        in_a_browser(server.url, scheme, act)


def test_several_answers_side_by_side_and_stop(program, tmp_path):
    async def act(page):
        await page.until("document.querySelector('#model').textContent.includes('Austen')")
        await page.run("document.querySelector('.count').value = 3; document.querySelector('.most').value = 30")
        await page.say("She was")
        await page.until("document.querySelectorAll('.pane').length === 3 && " + SETTLED + "3")
        heads = await page.run("panes.map(p => p.head)")
        assert len(set(heads)) == 3 and None not in heads
        await page.shot(tmp_path / "answers.png")
        print(tmp_path / "answers.png")
        await page.run("document.querySelectorAll('.close')[2].click(); document.querySelectorAll('.close')[1].click()")
        await page.run("document.querySelector('.count').value = 1; document.querySelector('.most').value = 20000; current.input.focus()")
        # Small as it is, the model may end an answer before anyone can stop it: here it cannot choose a token that ends one.
        await page.run("""window.fetch = (real => (path, options) => real(path, !path.includes('completions') ? options :
            {...options, body: JSON.stringify({...JSON.parse(options.body), logit_bias: {4093: -100, 4094: -100, 4095: -100}})}))(window.fetch)""")
        await page.say("Go on for ever")
        await page.until("!document.querySelector('.stop').hidden && current.log.lastElementChild.textContent.length > 40")
        await page.key("Escape", 27)
        await page.until("document.querySelector('.stop').hidden")

    with running(program, "--quiet") as server:
        in_a_browser(server.url, "light", act)
        server.idle()


def test_markup_in_answers_is_text(program):
    async def act(page):
        await page.until("document.querySelector('#model').textContent.includes('Austen')")
        await page.say("<img src=x onerror=document.title='owned'><b>bold</b>")
        await page.until(SETTLED + "1")
        await page.until("document.querySelectorAll('[role=treeitem]').length >= 1")
        assert await page.run("document.title") == "Reprise"
        assert await page.run("document.querySelectorAll('.log img, .log b:not(.stats b), nav img').length") == 0

    with running(program, "--quiet") as server:
        in_a_browser(server.url, "light", act)


def test_a_key_is_asked_for(program, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("a-key-to-the-page\n")
    keys.chmod(0o600)

    async def act(page):
        await page.until("document.querySelector('#keys').open")
        page.told.clear()  # the browser reports the 401 itself
        await page.run("document.querySelector('#key').value = 'a-key-to-the-page'; document.querySelector('#keys button').click()")
        await page.until("document.querySelector('#model').textContent.includes('Austen')")
        page.told.clear()

    with running(program, "--quiet", "--api-key-file", str(keys)) as server:
        in_a_browser(server.url, "light", act)
