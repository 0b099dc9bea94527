"""Calls that pass file descriptors, each way, with the guest that has a VNC display.

Usage: descriptors.py URI XML-FILE ROUNDS      (qemu:///session)
"""

import os
import socket
import sys

import libvirt
import libvirt_qemu

uri, xml_file, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
BANNER = b"RFB 003.008\n"


def banner(display):
    display.settimeout(60)
    with display:
        return display.recv(len(BANNER), socket.MSG_WAITALL)


conn = libvirt.open(uri)
with open(xml_file, encoding="utf-8") as file:
    guest = conn.createXML(file.read(), libvirt.VIR_DOMAIN_START_AUTODESTROY)

for _ in range(rounds):
    # From the daemon: a connected socket of the display.
    received = banner(socket.socket(fileno=guest.openGraphicsFD(0, 0)))
    if received != BANNER:
        sys.exit(f"openGraphicsFD: {received!r}")
    # To the daemon: our socket, which the display then speaks on.
    ours, theirs = socket.socketpair()
    guest.openGraphics(0, theirs.fileno(), 0)
    theirs.close()
    received = banner(ours)
    if received != BANNER:
        sys.exit(f"openGraphics: {received!r}")
print(f"openGraphicsFD {rounds}\nopenGraphics {rounds}", flush=True)

# To the daemon, by the QEMU program: the guest's emulator then holds the end of our pipe.
reader, writer = os.pipe()
libvirt_qemu.qemuMonitorCommandWithFiles(
    guest, '{"execute":"getfd","arguments":{"fdname":"ours"}}', [writer], 0)
os.close(writer)
libvirt_qemu.qemuMonitorCommandWithFiles(
    guest, '{"execute":"closefd","arguments":{"fdname":"ours"}}', [], 0)
# With every copy closed, the reader sees the end; a leaked one would keep this waiting.
if os.read(reader, 1) != b"":
    sys.exit("the pipe has data")
print("qemuMonitorCommandWithFiles 1", flush=True)
guest.destroy()
conn.close()
