#!/bin/sh
# The demonstration behind `make demo`: a real libvirtd with libvirt's built-in test driver, the
# proxy in front of it, and a tour of what the proxy does. It leaves both running.
set -eu

demo=${DEMO:-/tmp/virtproxyd-demo}
top=$(cd "$(dirname "$0")/.." && pwd)
virtproxyd="${CARGO_TARGET_DIR:-$top/target}/release/virtproxyd"
client="test+unix:///default?socket=$demo/libvirt-sock"
elsewhere="test+unix:///elsewhere?socket=$demo/libvirt-sock"

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { printf '\033[36m$ %s\033[0m\n' "$*"; "$@"; }

# Waits up to ten seconds for a command to succeed.
await() {
    what=$1; shift
    for _ in $(seq 100); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    echo "gave up waiting for $what; see $demo/*.log" >&2
    exit 1
}

stop() {
    for name in virtproxyd libvirtd; do
        pid=$(cat "$demo/$name.pid" 2>/dev/null) || continue
        if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ]; then kill "$pid"; fi
    done
    rm -rf "$demo"
}

# libvirtd without privileges, wholly inside the demonstration's directory.
start_libvirtd() {
    mkdir -p "$demo/run" "$demo/home"
    as=""
    if [ "$(id -u)" -eq 0 ]; then
        chown nobody "$demo/run" "$demo/home"
        as="setpriv --reuid nobody --regid nogroup --clear-groups"
    fi
    # shellcheck disable=SC2086 # a list of words
    env HOME="$demo/home" XDG_RUNTIME_DIR="$demo/run" XDG_CONFIG_HOME="$demo/home/config" \
        XDG_CACHE_HOME="$demo/home/cache" XDG_DATA_HOME="$demo/home/data" \
        setsid $as /usr/sbin/libvirtd >"$demo/libvirtd.log" 2>&1 &
    echo $! >"$demo/libvirtd.pid"
    await "libvirtd" test -S "$demo/run/libvirt/libvirt-sock"
}

start() {
    "$top/tests/install.sh" "$@"
    (cd "$top" && cargo build --locked --release)
    stop
    mkdir -p "$demo"
    cp "$top/examples/demo.yaml" "$demo/routes.yaml"
    export DEMO="$demo"

    say "A real libvirtd, without privileges, with libvirt's built-in test driver"
    start_libvirtd
    echo "listening on $demo/run/libvirt/libvirt-sock"

    say "The policy, checked; and the proxy in front"
    run "$virtproxyd" check "$demo/routes.yaml"
    run "$virtproxyd" -d -f "$demo/routes.yaml" -p "$demo/virtproxyd.pid"

    say "virsh through the proxy, reading and writing"
    # In one go: the test driver forgets its state when its last connection closes.
    run virsh -c "$client" "list --all; suspend test; list --all; resume test; net-list; pool-list"

    say "Which way does it go, and why?"
    run "$virtproxyd" explain -f "$demo/routes.yaml" --listener main --uri test:///default

    say "The read-only socket refuses writes"
    run virsh -c "${client}-ro" suspend test || true

    say "A URI without a route is refused, whatever the daemon behind could open"
    run virsh -c "$elsewhere" list || true

    say "Edit the policy: reloaded by SIGHUP, it serves the very next connection"
    sed -i 's|uri: "test:///default"|uri: "test:///*", open: "test:///default"|' "$demo/routes.yaml"
    run grep 'test:///\*' "$demo/routes.yaml"
    kill -HUP "$(cat "$demo/virtproxyd.pid")"
    await "the reload" virsh -c "$elsewhere" list
    run virsh -c "$elsewhere" list

    say "A broken policy is explained, and never replaces a good one"
    sed 's/upstream: libvirtd/upstream: libvirt/' "$demo/routes.yaml" >"$demo/broken.yaml"
    run "$virtproxyd" check "$demo/broken.yaml" || true

    say "Both are left running. Try:"
    cat <<EOT
  virsh -c "$client"
  \$EDITOR $demo/routes.yaml
  make demo-stop
EOT
}

command=${1:-start}
[ $# -gt 0 ] && shift
"$command" "$@"
