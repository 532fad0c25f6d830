"""On the PYTHONPATH of every kernel that the tests start: reaching for the network raises at once.

Python imports `sitecustomize` by itself when it starts, so this holds before a notebook's first line and in
each Python process that it starts. An audit hook sees every socket, whoever imported it and when. Left alone
are this machine itself (loopback, Unix sockets) and C++ code with sockets of its own.
"""

import errno
import sys

LOCAL_HOSTS = {None, "", "localhost", "127.0.0.1", "::1"}


def _refuse_network(event: str, arguments: tuple) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in LOCAL_HOSTS:
        raise OSError(errno.ENETUNREACH, f"The network is blocked in tests; this tried to reach {host}")


sys.addaudithook(_refuse_network)
