"""Brings a server into another network namespace: connections to a port there go through a unix socket to the port of
the same number here. `relay.py SOCKET PORT` is the end inside; `Relay` is the end outside."""

import pathlib
import socket
import sys
import threading


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def relay(listener, connect):
    """Joins each connection that comes to one that `connect` makes, until the listener is closed."""
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        try:
            far = connect()
        except OSError:
            near.close()
            continue
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


def unix(path):
    end = socket.socket(socket.AF_UNIX)
    end.connect(str(path))
    return end


class Relay:
    """The end beside the server."""

    def __init__(self, path: pathlib.Path, port: int):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        connect = lambda: socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=relay, args=(self.listener, connect), daemon=True).start()


if __name__ == "__main__":
    inside = socket.create_server(("127.0.0.1", int(sys.argv[2])))
    relay(inside, lambda: unix(sys.argv[1]))
