"""Defines domains until one is refused, undefines one of them, and goes on until the next refusal.

Usage: fill.py URI NAME      (test:///default; domains are called NAME-0, NAME-1 ...)
"""

import sys

import libvirt

uri, name = sys.argv[1], sys.argv[2]
libvirt.registerErrorHandler(lambda _context, _error: None, None)
conn = libvirt.open(uri)
domains = []


def fill():
    """Returns the refusal and how many were defined before it."""
    for count in range(1000):
        try:
            domains.append(conn.defineXML(
                f"<domain type='test'><name>{name}-{len(domains)}</name><memory>65536</memory>"
                "<vcpu>2</vcpu><os><type>hvm</type></os></domain>"))
        except libvirt.libvirtError as error:
            return count, error
    sys.exit("never refused")


for _ in range(2):
    count, error = fill()
    print(f"{count} defined, then {error.get_error_code()}/{error.get_error_domain()}: {error}")
    domains.pop().undefine()
conn.close()
