"""Defines objects by XML, and prints what the daemon then says of each, as a line of JSON.

Usage: definitions.py URI KIND FILE      FILE: a JSON list of documents

A line is {"error": text} for a document that the daemon refuses.
"""

import json
import sys

import libvirt

OWNER = "https://virtproxyd.org/xmlns/owner/1"


def domain(conn, xml):
    made = conn.defineXML(xml)
    said = {"name": made.name(), "uuid": made.UUIDString(), "xml": made.XMLDesc()}
    try:
        said["owner"] = made.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, OWNER)
    except libvirt.libvirtError:
        said["owner"] = None
    return made, said


def network(conn, xml):
    made = conn.networkDefineXML(xml)
    return made, {"name": made.name(), "uuid": made.UUIDString()}


def pool(conn, xml):
    made = conn.storagePoolDefineXML(xml)
    return made, {"name": made.name(), "uuid": made.UUIDString()}


def interface(conn, xml):
    made = conn.interfaceDefineXML(xml)
    return made, {"name": made.name(), "mac": made.MACString()}


def secret(conn, xml):
    made = conn.secretDefineXML(xml)
    return made, {"uuid": made.UUIDString(), "usage_type": made.usageType(),
                  "usage": made.usageID()}


def volume(conn, xml):
    made = conn.storagePoolLookupByName("default-pool").createXML(xml)
    return None, {"name": made.name(), "deleted": made.delete()}


uri, kind, path = sys.argv[1:]
libvirt.registerErrorHandler(lambda _context, _error: None, None)
conn = libvirt.open(uri)
with open(path, encoding="utf-8", newline="") as file:
    documents = json.load(file)
for xml in documents:
    try:
        made, said = globals()[kind](conn, xml)
    except libvirt.libvirtError as error:
        print(json.dumps({"error": str(error)}))
        continue
    if made is not None:
        made.undefine()
    print(json.dumps(said))
