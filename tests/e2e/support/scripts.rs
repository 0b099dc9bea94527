//! The Python clients of `tests/e2e/scripts`; each says in its head what it does and takes.

/// A script, as text: a user who may not read the source tree can run it too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

macro_rules! script {
    ($constant:ident, $file:literal) => {
        #[doc = concat!("`tests/e2e/scripts/", $file, "`")]
        pub(crate) const $constant: Script = Script {
            name: $file,
            text: include_str!(concat!("../scripts/", $file)),
        };
    };
}

script!(AS_USER, "as_user.py");
script!(CLOSE_CALLBACK, "close_callback.py");
script!(CONSOLE, "console.py");
script!(DEFINITIONS, "definitions.py");
script!(DESCRIPTORS, "descriptors.py");
script!(EVENTS, "events.py");
script!(FILL, "fill.py");
script!(HALTED_DOWNLOADS, "halted_downloads.py");
script!(LISTS, "lists.py");
script!(OUTSTANDING, "outstanding.py");
script!(PARALLEL, "parallel.py");
script!(RESTARTS, "restarts.py");
script!(SCRIPT_OF_CALLS, "script_of_calls.py");
script!(SEVERAL, "several.py");
script!(STAND_IN, "stand_in.py");
script!(STREAMS, "streams.py");
script!(THREADS, "threads.py");
script!(VIRSH_CONSOLE, "virsh_console.py");
