"""Sends visits from standard input, one `user<TAB>segment` a line, until its end or SIGTERM."""

import logging
import os
import signal
import sys
import threading

from sender import Sender


def read(sender, ended):
    try:
        for line in sys.stdin.buffer:
            user, _, segment = line.decode(errors="replace").rstrip("\n").partition("\t")
            sender.record(user, segment)
    except RuntimeError:
        pass  # The sender was closed by a signal.
    finally:
        ended.set()


def main():
    logging.basicConfig(format="%(levelname)s %(message)s")
    url = os.environ.get("SEGMENTS_URL", "http://localhost:8080")
    sender = Sender(url, os.environ.get("SEGMENTS_API_KEY"))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    threading.Thread(target=read, args=(sender, ended), daemon=True).start()
    ended.wait()
    is_complete = sender.close()
    print(
        f"{sender.recorded} recorded, {sender.acknowledged} acknowledged, "
        f"{sender.rejected} rejected, {sender.dropped} dropped",
        flush=True,
    )
    # At once: the reader may hold standard input.
    os._exit(0 if is_complete else 1)


main()
