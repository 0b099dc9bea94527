# What a reader of the README runs. Everything here works on a bare Debian 12 with Rust.

# What the demonstration needs, and what the tests need beside it.
DEMO_PACKAGES = libvirt-daemon libvirt-clients
TEST_PACKAGES = $(DEMO_PACKAGES) libvirt-daemon-driver-qemu python3-libvirt qemu-system-x86 \
                qemu-utils systemd procps util-linux libsasl2-modules gnutls-bin dbus-daemon polkitd \
                libvirt-daemon-system dnsmasq-base iptables iproute2 sasl2-bin
# What the feature `gssapi` needs to build and to be tested.
GSSAPI_PACKAGES = libkrb5-dev libclang-dev krb5-kdc krb5-admin-server krb5-user \
                  libsasl2-modules-gssapi-mit

# Where `make install` puts things. Units in /etc come before those of a distribution's libvirt.
PREFIX ?= /usr/local
UNITS ?= /etc/systemd/system
TMPFILES ?= /etc/tmpfiles.d
DESTDIR ?=
RELEASE = $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: demo demo-stop install front-doors front-doors-undo test test-default test-gssapi check

## Build, start a real libvirtd with its test driver and the proxy in front of it, and try them.
demo:
	./examples/demo.sh start $(DEMO_PACKAGES)

## Stop what `make demo` left running.
demo-stop:
	./examples/demo.sh stop

## Build, and install the program, its units, the examples and the schema.
install:
	cargo build --locked --release
	install -D -m 0755 $(RELEASE)/virtproxyd $(DESTDIR)$(PREFIX)/sbin/virtproxyd
	for unit in systemd/*.service systemd/*.socket; do \
	    install -D -m 0644 $$unit $(DESTDIR)$(UNITS)/$${unit##*/} || exit 1; \
	done
	sed -i 's|^ExecStart=/usr/sbin/|ExecStart=$(PREFIX)/sbin/|' $(DESTDIR)$(UNITS)/virtproxyd.service
	install -d $(DESTDIR)$(PREFIX)/share/virtproxyd
	cp -r examples schemas systemd/front-doors $(DESTDIR)$(PREFIX)/share/virtproxyd/

## Move the sockets of libvirt's modular daemons behind the proxy; docs/front-doors.md has the rest.
front-doors:
	install -D -m 0644 -t $(DESTDIR)$(TMPFILES) systemd/front-doors/virtproxyd-front-doors.conf
	cd systemd/front-doors && for file in */virtproxyd.conf; do \
	    install -D -m 0644 $$file $(abspath $(DESTDIR)$(UNITS))/$$file || exit 1; \
	done

## Move them back.
front-doors-undo:
	rm -f $(DESTDIR)$(TMPFILES)/virtproxyd-front-doors.conf
	cd systemd/front-doors && for dir in *.socket.d; do \
	    rm -f $(abspath $(DESTDIR)$(UNITS))/$$dir/virtproxyd.conf; \
	    rmdir --ignore-fail-on-non-empty $(abspath $(DESTDIR)$(UNITS))/$$dir || exit 1; \
	done

## Install what is missing and run every test, then those of the build with Kerberos.
test: test-default test-gssapi

test-default:
	./tests/install.sh $(TEST_PACKAGES)
	cargo test --locked

## Install what Kerberos needs, and check and test the build that has it.
test-gssapi:
	./tests/install.sh $(TEST_PACKAGES) $(GSSAPI_PACKAGES)
	cargo clippy --locked --all-targets --features gssapi -- -D warnings
	cargo test --locked --features gssapi --lib --test sasl
	cargo test --locked --features gssapi --test e2e kerberos::

## What a change must pass beside the tests.
check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check licenses bans sources; \
	else echo "cargo-deny is not installed: dependencies are not checked"; fi
