"""Many streams in both directions at once on one connection.

Usage: parallel.py URI POOL STREAMS MIB      (qemu:///session; makes the volumes that it needs)

Uploads to STREAMS volumes one after the other; then downloads them all at once, while as many
others are uploaded; then downloads those and compares everything.
"""

import hashlib
import os
import sys
import threading

import libvirt

MIB = 1 << 20
uri, pool_name, streams, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) * MIB
conn = libvirt.open(uri)
pool = conn.storagePoolLookupByName(pool_name)
failures = []


def volume(name):
    return pool.createXML(f"<volume><name>{name}</name><capacity>{size}</capacity>"
                          "<allocation>0</allocation></volume>", 0)


def send_block(_stream, count, source):
    block = source["data"][source["at"]:source["at"] + count]
    source["at"] += len(block)
    return block


def upload(target, data):
    stream = conn.newStream()
    target.upload(stream, 0, size, 0)
    stream.sendAll(send_block, {"data": data, "at": 0})
    stream.finish()


def download(source, data):
    digest, count = hashlib.sha256(), 0
    stream = conn.newStream()
    source.download(stream, 0, size, 0)
    while block := stream.recv(100_000):
        digest.update(block)
        count += len(block)
    stream.finish()
    if digest.digest() != hashlib.sha256(data).digest():
        failures.append(f"{source.name()}: {count} bytes came, and they differ")


def attempt(work, *args):
    try:
        work(*args)
    except libvirt.libvirtError as error:
        failures.append(f"{work.__name__}: {error}")


def at_once(jobs):
    threads = [threading.Thread(target=attempt, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit("\n".join(failures))


first = [(volume(f"first-{index}"), os.urandom(size)) for index in range(streams)]
second = [(volume(f"second-{index}"), os.urandom(size)) for index in range(streams)]
for pair in first:
    upload(*pair)
at_once([(download, *pair) for pair in first] + [(upload, *pair) for pair in second])
at_once([(download, *pair) for pair in second])
print(f"{len(first)} down beside {len(second)} up: equal")
conn.close()
