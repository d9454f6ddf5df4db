"""A headless Chromium, driven over its debugging pipe."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from pathlib import Path


class Browser:
    """Headless Chromium, driven over its debugging pipe (JSON messages, each ended by a zero byte)."""

    FLAGS = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
    )

    ALARMS = ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")

    def __init__(self, program: str, folder: Path):
        theirs_in, self.out = os.pipe()
        self.back, theirs_out = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in (theirs_in, theirs_out)]

        def wire() -> None:  # in the child: Chromium listens on 3 and answers on 4
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program, *self.FLAGS.split(), f"--user-data-dir={folder}", "about:blank"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in (theirs_in, theirs_out, *high):
            os.close(fd)
        self.number, self.rest, self.session, self.problems = 0, b"", None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def send(self, method: str, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                more = os.read(self.back, 1 << 16)
                assert more, "the browser is gone"
                self.rest += more
            text, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("method") in self.ALARMS:
                self.problems.append(text.decode()[:600])
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, code: str):
        answer = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, code: str, seconds: float = 30):
        """Wait until ``code`` is true; the limit only ends a test that has failed."""
        end = time.monotonic() + seconds
        # An error counts as false: the page may just be loading.
        guarded = f"(() => {{ try {{ return Boolean({code}); }} catch {{ return false; }} }})()"
        while not (value := self.run(guarded)):
            assert time.monotonic() < end, (code, self.run("document.body.innerText")[:2000], self.problems)
            time.sleep(0.03)
        return value

    def open(self, address: str) -> None:
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=address)
        self.until("document.querySelector('#detail .tracks, #detail .note, #notes .note, #rows .empty')")

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.back)
