//! What the installed agent does with an image in guests of its own, by phase: seals one, proves one. There is no other
//! side; the images are the kernel tier's, as small as can be, so that most of it is the guests' start.

use std::path::Path;

use sheath::{
    control::{
        api::{Reply, Request, SOCKET},
        client::Client,
    },
    status::WorkProgress,
};

use crate::{
    fixture::run,
    row::{say, tell},
};

/// One that lacks most of what a blade needs, and one whose boot sector says what a getty says.
const SMALL: &str = include_str!("../../tests/kernel/small_image.sh");
const PROMPT: &str = include_str!("../../tests/kernel/prompt_image.sh");
/// The first work after a kernel's upgrade makes what the guests are started from: no image's own time.
const MAKING: &str = "making the workshop";

/// `image.seal` and `image.prove`.
pub(crate) fn phases() {
    import("small", SMALL, "/run/small.raw");
    run("sheath", &["image", "seal", "small"]);
    told("image.seal", "small", "a 96 MiB disk with stand-ins for the makers of its initramfs");
    import("proof", PROMPT, "/run/proof.raw");
    run("sheath", &["image", "prove", "proof", "--firmware", "bios"]);
    told("image.prove", "proof", "BIOS, to the prompt of a 16 MiB disk's boot sector");
    for image in ["small@2", "small@1", "proof@1"] {
        run("sheath", &["image", "remove", image, "--yes"]);
    }
}

fn import(image: &str, script: &str, file: &str) {
    say(run("sh", &["-c", script]).trim());
    run("sheath", &["image", "import", image, file]);
    run("rm", &[file]);
}

/// Tells how long the image's last work took, and each phase of it.
fn told(name: &str, image: &str, what: &str) {
    let request = Request::WorkProgress { image: image.parse().unwrap() };
    let reply = Client::new(Path::new(SOCKET)).unwrap().ask(&request).unwrap();
    let Reply::Work(work) = reply else { panic!("{reply:?}") };
    assert!(matches!(work.progress, WorkProgress::Done { .. }), "{work:?}");
    let mut whole = 0.0;
    let mut phases = vec![];
    for phase in &work.phases {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of some minutes")]
        let seconds = phase.millis as f64 / 1000.0;
        let once = phase.name == MAKING;
        whole += if once { 0.0 } else { seconds };
        phases.push(format!(
            "{} {seconds:.1} s{}",
            phase.name,
            if once { " (once, not counted)" } else { "" }
        ));
    }
    tell(name, whole, "s", None, &format!("{what}: {}", phases.join(", ")));
}
