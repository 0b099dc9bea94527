"""Many downloads of one volume, each on a connection of its own, halted in the middle.

Usage: halted_downloads.py URI POOL VOLUME FILE CLIENTS      (qemu:///session)

Begins all downloads and takes a little of each; then says so and waits for SIGUSR1 before it takes
the rest and compares it with FILE.
"""

import hashlib
import signal
import sys

import libvirt

uri, pool_name, volume_name, file, clients = *sys.argv[1:5], int(sys.argv[5])
# Before there are threads, which would else take it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
with open(file, "rb") as content:
    wanted = hashlib.file_digest(content, "sha256").hexdigest()


class Download:
    def __init__(self):
        self.conn = libvirt.open(uri)
        volume = self.conn.storagePoolLookupByName(pool_name).storageVolLookupByName(volume_name)
        self.stream = self.conn.newStream()
        volume.download(self.stream, 0, 0, 0)
        self.digest = hashlib.sha256()

    def take(self):
        block = self.stream.recv(200_000)
        self.digest.update(block)
        return block

    def finish(self):
        while self.take():
            pass
        self.stream.finish()
        self.conn.close()
        if self.digest.hexdigest() != wanted:
            sys.exit("a download differs")


downloads = [Download() for _ in range(clients)]
for download in downloads:
    download.take()
print(f"{clients} streaming")
signal.sigwait({signal.SIGUSR1})
for download in downloads:
    download.finish()
print(f"{clients} equal")
