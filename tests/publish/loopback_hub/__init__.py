"""A hub on the loopback interface, for tests and demonstrations: the unmodified huggingface_hub client talks to it.

It follows the protocol of huggingface_hub 2.4 and is strict: an unknown route, a missing header or a body in another
form is an error, and is recorded. Repositories stay on disk, so that it can be started again.

    hub = Hub(folder)                       # serves until hub.close()
    hub.fail("commit", status=503, times=2) # the next two requests to a route; the names of routes are in api.py
    python -m loopback_hub FOLDER           # from tests/publish; prints its address, ends on SIGTERM

- routes and their replies: api.py; requests, faults, the two origins: server.py
- what tests do to it: hub.py
- commits, trees, pull requests with git's own ids: repository.py
- LFS objects, signed addresses, Xet: storage.py

Not covered: spaces, large uploads by several machines, git's own protocol, rate limits that are not asked for.
"""

from loopback_hub.hub import Hub
from loopback_hub.messages import Account, Fault, Request

__all__ = ["Account", "Fault", "Hub", "Request"]
