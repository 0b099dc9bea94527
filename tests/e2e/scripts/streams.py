"""Uploads a volume, downloads it again, and compares.

Usage: streams.py URI POOL VOLUME MIB      (qemu:///session; a fresh volume of that size)

First as a sparse stream where every second MiB is a hole (the daemon leaves alone what was there,
hence the fresh volume), then all of it as data, then an upload and a download that are aborted in
the middle.
"""

import hashlib
import os
import sys

import libvirt

MIB = 1 << 20
uri, pool_name, volume_name, size = *sys.argv[1:4], int(sys.argv[4]) * MIB


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def send_block(_stream, count, source):
    block = bytes(source["data"][source["at"]:source["at"] + count])
    source["at"] += len(block)
    return block


def receive_block(_stream, block, target):
    target.extend(block)


def in_data(_stream, source):
    """Whether the source is at data, and how much follows of the same kind."""
    at, data = source["at"], source["data"]
    if at == len(data):
        return [False, 0]
    return [(at // MIB) % 2 == 0, MIB - at % MIB]


def skip_hole(_stream, length, source):
    source["at"] += length
    return 0


def receive_hole(_stream, length, target):
    target.extend(bytes(length))
    holes.append(length)
    return 0


conn = libvirt.open(uri)
volume = conn.storagePoolLookupByName(pool_name).storageVolLookupByName(volume_name)

data = b"".join(os.urandom(MIB) if index % 2 == 0 else bytes(MIB) for index in range(size // MIB))
holes = []
stream = conn.newStream()
volume.upload(stream, 0, size, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
stream.sparseSendAll(send_block, in_data, skip_hole, {"data": data, "at": 0})
stream.finish()
received = bytearray()
stream = conn.newStream()
volume.download(stream, 0, size, libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
stream.sparseRecvAll(receive_block, receive_hole, received)
stream.finish()
if sha256(received) != sha256(data):
    sys.exit(f"sparse: {size} bytes sent, {len(received)} received, and they differ")
if not holes:
    sys.exit("the sparse download had no hole")
print(f"sparse: {size} bytes equal")

data = os.urandom(size)
stream = conn.newStream()
volume.upload(stream, 0, size, 0)
stream.sendAll(send_block, {"data": data, "at": 0})
stream.finish()
received = bytearray()
stream = conn.newStream()
volume.download(stream, 0, size, 0)
stream.recvAll(receive_block, received)
stream.finish()
if sha256(received) != sha256(data):
    sys.exit(f"{size} bytes sent, {len(received)} received, and they differ")
print(f"data: {size} bytes equal")

stream = conn.newStream()
volume.upload(stream, 0, size, 0)
stream.send(bytes(100_000))
stream.abort()
stream = conn.newStream()
volume.download(stream, 0, size, 0)
stream.recv(100_000)
stream.abort()
if volume.name() != volume_name or conn.getType() != "QEMU":
    sys.exit("the connection does not work after the aborts")
print("aborted: connection works")
conn.close()
