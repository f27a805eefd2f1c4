//! An import whose agent is killed: what it has left does not outlive the next one, and what is fetched stays fetched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use sheath::{
    image::{Cancel, Import},
    model::VolumeState,
};

use crate::{
    guest::wait_for,
    import::{Lab, assert_imported, copier, large, ready, volume},
    import_sources::Server,
    lvm::pool,
};

/// What a child of this program imports, and where its folder is: `FOLDER SOURCE`.
const CHILD: &str = "SHEATH_IMPORT_CHILD";
const NAME: &str = "killed";

/// Not a test by itself: what the tests below start, to kill it.
#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_child() {
    let Ok(words) = env::var(CHILD) else { return };
    let (folder, source) = words.split_once(' ').unwrap();
    let import = Import {
        image: NAME.parse().unwrap(),
        source: source.parse().unwrap(),
        checks: vec![],
        publish: true,
        folder: folder.into(),
        watermark: 90,
        stall: sheath::image::STALL,
        keys: sheath::host::ssh::Keys::default(),
    };
    // The pool is there already: the parent has made it.
    let pool = sheath::host::lvm::Lvm::new("sheathtest".parse().unwrap(), "pool".parse().unwrap());
    drop(import.run(&pool, &Cancel::default(), &mut |_| ()).map_err(|e| e.chain()).unwrap());
}

fn start(lab: &Lab, source: &str) -> Child {
    pool();
    Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "import_crash::vm_import_child"])
        .env(CHILD, format!("{} {source}", lab.path("").display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_of_a_killed_agent_is_made_anew() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    large(&lab);
    let mut child = start(&lab, &lab.text("large"));
    let copier = wait_for("the copying", copier);
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = || (!Path::new(&format!("/proc/{copier}")).exists()).then_some(());
    wait_for("the end of what copies, with its agent's", gone);
    assert_eq!(volume(NAME).unwrap().state, VolumeState::Making);
    lab.import(NAME, &lab.text("disk.raw")).0.map_err(|e| e.chain()).unwrap();
    assert_imported(NAME);
}

#[test]
#[ignore = "needs root and device-mapper in a guest: the lab runs it there"]
fn vm_import_goes_on_with_what_a_killed_agent_has_fetched() {
    let Some(_turn) = ready() else { return };
    let lab = Lab::new();
    let content = fs::read(lab.path("disk.qcow2")).unwrap();
    let (server, quarter) = (Server::of(content.clone()), content.len() as u64 / 4);
    let mut child = start(&lab, &server.url("stalls"));
    let part = lab.path(&format!("import-{NAME}/part"));
    // The server has said a third; curl keeps the last few KiB to itself until it ends.
    wait_for("a quarter of the file", || (part.metadata().ok()?.len() >= quarter).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    server.asked.lock().unwrap().clear();
    // The same URL, and its word for the file's version is the same. It falls silent once more: that is not waited for.
    let order = Import { stall: Duration::from_secs(5), ..lab.order(NAME, &server.url("stalls")) };
    let result = order.run(pool(), &Cancel::default(), &mut |_| ());
    drop(result.map_err(|e| e.chain()).unwrap());
    lab.assert_clean(&order.image.name);
    let asked = server.asked.lock().unwrap();
    let first = asked.iter().find(|line| line.starts_with("GET")).unwrap();
    assert!(first != "GET -", "{asked:?}");
    drop(asked);
    assert_imported(NAME);
}
