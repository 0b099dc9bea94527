"""Runs `virsh console` on a terminal of its own, with the echoing guest.

Usage: virsh_console.py URI XML-FILE NAME      (qemu:///session)
"""

import os
import pty
import select
import sys
import time

import libvirt

DEADLINE = 60
uri, xml_file, name = sys.argv[1:4]
conn = libvirt.open(uri)
with open(xml_file, encoding="utf-8") as file:
    guest = conn.createXML(
        file.read(), libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED)

pid, terminal = pty.fork()
if pid == 0:
    os.execv("/usr/bin/virsh", ["virsh", "-c", uri, "console", name, "--force"])
output = b""
deadline = time.monotonic() + DEADLINE


def wait_for(text):
    """Reads the terminal until it has shown `text`."""
    global output
    while text not in output:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([terminal], [], [], left)[0]:
            sys.exit(f"{text!r} did not come within {DEADLINE} s, only {output!r}")
        try:
            output += os.read(terminal, 1024)
        except OSError:
            sys.exit(f"virsh ended before {text!r}: {output!r}")
    output = output[output.index(text) + len(text):]


# Paused until here: the emulator drops what nobody is there to read.
wait_for(b"Escape character is")
guest.resume()
wait_for(b"echo\r\n")
print("greeted", flush=True)
os.write(terminal, b"hello through virsh")
wait_for(b"hello through virsh")
print("echoed", flush=True)
os.write(terminal, b"\x1d")
_, status = os.waitpid(pid, 0)
print(f"virsh exited with {os.waitstatus_to_exitcode(status)}")
conn.close()
