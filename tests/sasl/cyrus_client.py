"""A client of Cyrus SASL, the library that libvirt's clients use, driven line by line.

cyrus_client.py MECHANISMS USER PASSWORD AUTHZID HOST MIN_SSF MAX_SSF

Each line that it reads is an order, each line that it writes the answer: data in base64 behind a
colon, or `nil`; or `error` and the reason.
  start         -> mechanism and data, separated by a space
  step DATA     -> data
  finished      -> `yes SSF` once the client is content, else `no`
  encode DATA, decode DATA -> data
"""
import base64
import ctypes
import sys

from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_uint, c_ulong, c_void_p

OK, CONTINUE = 0, 1
CB_USER, CB_AUTHNAME, CB_PASS = 0x4001, 0x4002, 0x4004
PROP_SSF, PROP_SSF_EXTERNAL, PROP_SEC_PROPS, PROP_AUTH_EXTERNAL = 1, 100, 101, 102
SUCCESS_DATA = 4
MAXBUFSIZE = 1 << 16  # libvirt's


class Callback(ctypes.Structure):
    _fields_ = [("id", c_ulong), ("proc", c_void_p), ("context", c_void_p)]


class SecurityProperties(ctypes.Structure):
    _fields_ = [
        ("min_ssf", c_uint),
        ("max_ssf", c_uint),
        ("maxbufsize", c_uint),
        ("flags", c_uint),
        ("names", c_void_p),
        ("values", c_void_p),
    ]


SIMPLE = ctypes.CFUNCTYPE(c_int, c_void_p, c_int, POINTER(c_char_p), POINTER(c_uint))
SECRET = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, POINTER(c_void_p))

mechanisms, user, password, authzid, host, min_ssf, max_ssf = sys.argv[1:]
sasl = ctypes.CDLL("libsasl2.so.2")
sasl.sasl_errdetail.restype = c_char_p
conn = c_void_p()


class SaslError(Exception):
    pass


def check(code, *allowed):
    if code not in (OK, *allowed):
        raise SaslError(f"{code} {(sasl.sasl_errdetail(conn) or b'?').decode()}")
    return code


@SIMPLE
def simple(_context, which, result, length):
    value = (user if which == CB_AUTHNAME else authzid).encode()
    kept.append(value)
    result[0] = value
    if length:
        length[0] = len(value)
    return OK


@SECRET
def secret(_conn, _context, _which, result):
    value = password.encode()
    buffer = ctypes.create_string_buffer(ctypes.sizeof(c_ulong) + len(value) + 1)
    c_ulong.from_buffer(buffer).value = len(value)
    buffer[ctypes.sizeof(c_ulong) : ctypes.sizeof(c_ulong) + len(value)] = value
    kept.append(buffer)
    result[0] = ctypes.addressof(buffer)
    return OK


kept = []
callbacks = (Callback * 4)(
    Callback(CB_USER, ctypes.cast(simple, c_void_p), None),
    Callback(CB_AUTHNAME, ctypes.cast(simple, c_void_p), None),
    Callback(CB_PASS, ctypes.cast(secret, c_void_p), None),
    Callback(0, None, None),
)
check(sasl.sasl_client_init(None))
check(sasl.sasl_client_new(b"libvirt", host.encode(), None, None, callbacks, SUCCESS_DATA, byref(conn)))
properties = SecurityProperties(int(min_ssf), int(max_ssf), MAXBUFSIZE, 0, None, None)
check(sasl.sasl_setprop(conn, PROP_SEC_PROPS, byref(properties)))
if mechanisms == "EXTERNAL":
    check(sasl.sasl_setprop(conn, PROP_SSF_EXTERNAL, byref(c_uint(256))))
    check(sasl.sasl_setprop(conn, PROP_AUTH_EXTERNAL, c_char_p(user.encode())))
content = False


def show(pointer, length):
    if not pointer:
        return "nil"
    return ":" + base64.b64encode(ctypes.string_at(pointer, length)).decode()


def read(text):
    return None if text == "nil" else base64.b64decode(text[1:])


def order(line):
    global content
    word, _, rest = line.partition(" ")
    out, length, chosen = c_void_p(), c_uint(), c_char_p()
    if word == "start":
        code = sasl.sasl_client_start(
            conn, mechanisms.encode(), None, byref(out), byref(length), byref(chosen)
        )
        content = check(code, CONTINUE) == OK
        return f"{chosen.value.decode()} {show(out.value, length.value)}"
    if word == "finished":
        if not content:
            return "no"
        ssf = POINTER(c_int)()
        check(sasl.sasl_getprop(conn, PROP_SSF, byref(ssf)))
        return f"yes {ssf[0]}"
    data = read(rest)
    size = len(data or b"")
    if word == "step":
        code = sasl.sasl_client_step(conn, data, size, None, byref(out), byref(length))
        content = check(code, CONTINUE) == OK
    elif word == "encode":
        check(sasl.sasl_encode(conn, data, size, byref(out), byref(length)))
    elif word == "decode":
        check(sasl.sasl_decode(conn, data, size, byref(out), byref(length)))
    return show(out.value, length.value)


for line in sys.stdin:
    try:
        print(order(line.rstrip("\n")), flush=True)
    except SaslError as error:
        print(f"error {error}".replace("\n", " "), flush=True)
