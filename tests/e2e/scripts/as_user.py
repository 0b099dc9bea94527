"""Lends its user to a scripted client: connects to two sockets and copies bytes both ways between
them, until either closes.

Usage: as_user.py SOCKET SOCKET
"""

import select
import socket
import sys


def connected(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


near, far = (connected(path) for path in sys.argv[1:3])
other = {near: far, far: near}
while True:
    for source in select.select(other, [], [])[0]:
        data = source.recv(1 << 16)
        if not data:
            sys.exit()
        other[source].sendall(data)
