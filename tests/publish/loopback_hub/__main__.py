"""``HF_TOKEN=... python -m loopback_hub FOLDER [--port N] [--user NAME]``: a hub for one user, until SIGTERM.

Prints its address once it serves. The token is read from the environment, so that it is no argument.
"""

import argparse
import os
import signal
import threading
from pathlib import Path

from loopback_hub import Account, Hub


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", default="acme")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Hub(arguments.folder, {os.environ["HF_TOKEN"]: Account(arguments.user)}, port=arguments.port) as hub:
        print(hub.endpoint, flush=True)
        stop.wait()


main()
