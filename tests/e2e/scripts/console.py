"""Starts the echoing guest and talks to its serial console, both ways at once.

Usage: console.py URI XML-FILE BYTES      (qemu:///session)
"""

import sys
import threading

import libvirt

uri, xml_file, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
GREETING = b"echo\r\n"

conn = libvirt.open(uri)
with open(xml_file, encoding="utf-8") as file:
    guest = conn.createXML(
        file.read(), libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED)
stream = conn.newStream()
guest.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
# Paused until here: the emulator drops what nobody is there to read.
guest.resume()

received = b""
while GREETING not in received:
    received += stream.recv(1024)
print("greeted", flush=True)

sent = bytes(32 + index * 7 % 90 for index in range(size))


def send():
    at = 0
    while at < size:
        at += stream.send(sent[at:at + 1000])


sender = threading.Thread(target=send)
sender.start()
received = b""
while len(received) < size:
    received += stream.recv(4096)
sender.join()
if received != sent:
    sys.exit(f"the echo differs: {received[:100]!r}...")
print(f"echoed {size} bytes", flush=True)
stream.abort()
if guest.isActive() != 1:
    sys.exit("the guest is gone")
guest.destroy()
conn.close()
