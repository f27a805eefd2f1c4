//! Answers in iPXE's language: one template per answer, `*.ipxe` beside this file.
//!
//! A script is a program that runs on the blade, so nothing that was not written in a template may become a command.
//! Every value passes [`harmless`] on its way out, whatever the template says. And no script ends in a dead screen:
//! each command that can fail is followed by `||`, and the last line asks the appliance again or leaves iPXE.
//!
//! What decides which answer a blade gets is `policy`'s; how it travels is `server`'s.

use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior, Value, context, syntax::SyntaxConfig};

use super::wire::{Answer, BootDisk, Capture, Choice, Menu};
use crate::model::{Firmware, ImageRef, Portal};

/// What every question of a blade carries: iPXE fills it in.
///
/// `netX` is the NIC that was opened last, which is the one that it boots from. Free text stands last: old iPXE leaves
/// an `&` in it as it is, and `query` then believes the first of two words.
const CLAIMS: &str = "mac=${netX/mac:hexhyp}&uuid=${uuid}&platform=${platform}&version=${version:uristring}\
    &serial=${serial:uristring}&manufacturer=${manufacturer:uristring}&product=${product:uristring}";

/// The templates, by the names that they include each other with.
const TEMPLATES: [(&str, &str); 8] = [
    ("again.ipxe", include_str!("again.ipxe")),
    ("boot.ipxe", include_str!("boot.ipxe")),
    ("capture.ipxe", include_str!("capture.ipxe")),
    ("leave.ipxe", include_str!("leave.ipxe")),
    ("menu.ipxe", include_str!("menu.ipxe")),
    ("restart.ipxe", include_str!("restart.ipxe")),
    ("start.ipxe", include_str!("start.ipxe")),
    ("wait.ipxe", include_str!("wait.ipxe")),
];

/// Longest message that is shown, in characters: four lines of a console.
const MAX_TEXT: usize = 320;
/// Longest sleep in seconds: a blade that nobody can wake asks again after ten minutes at the latest.
const MAX_SLEEP: u32 = 600;
/// How long a refused blade shows why before its firmware goes on.
const REFUSED_SLEEP: u32 = 30;
/// How long a blade that is left to its firmware shows why.
const FIRMWARE_SLEEP: u32 = 1;

static SCRIPTS: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut scripts = Environment::new();
    scripts.set_undefined_behavior(UndefinedBehavior::Strict);
    // A line that only holds a tag leaves nothing behind, not even an empty line.
    let lines =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    scripts.set_syntax(lines.expect("the delimiters are the usual ones"));
    scripts.set_formatter(|out, _, value| {
        let text = value.to_string();
        out.write_str(&if value.is_safe() { text } else { harmless(&text) }).map_err(minijinja::Error::from)
    });
    for (name, text) in TEMPLATES {
        scripts.add_template(name, text).expect("a test renders every template");
    }
    scripts
});

/// Returns the script for this answer; `base` is `http://ADDRESS:PORT` of the server that the blade can reach.
pub fn render(answer: &Answer, base: &str) -> String {
    match answer {
        Answer::Menu(menu) => self::menu(menu, base),
        Answer::Boot(disk) => login("boot.ipxe", disk, base, None),
        Answer::Capture(Capture { to, disk }) => login("capture.ipxe", to, base, disk.as_deref()),
        // No machine in iPXE is told so: it is the answer to a report.
        Answer::Heard => wait("going on", 1, base),
        Answer::Wait { message, seconds } | Answer::Failed { message, seconds } => {
            wait(message, *seconds, base)
        }
        // The answer came when there was something to say; the pause is for an agent that answers at once.
        Answer::Progress { message } => wait(message, 1, base),
        Answer::Restart { message } => fill("restart.ipxe", context! { message => shown(message) }),
        Answer::Firmware { message } => leave(message, FIRMWARE_SLEEP),
        Answer::Refused { message } => leave(message, REFUSED_SLEEP),
    }
}

/// Returns the script that a blade starts with: it asks until the appliance answers.
pub fn start(base: &str) -> String {
    fill("start.ipxe", context! { base, claims => claims() })
}

/// Returns the word that stands for this choice in a menu and in its request.
pub(super) fn choice_word(choice: &Choice) -> String {
    match choice {
        Choice::Install(image) => format!("install.{image}"),
        Choice::Disk => "disk".to_owned(),
        Choice::Wait => "wait".to_owned(),
        Choice::Firmware => "firmware".to_owned(),
        Choice::Capture => "capture".to_owned(),
    }
}

fn claims() -> Value {
    Value::from_safe_string(CLAIMS.to_owned())
}

fn fill(template: &str, values: Value) -> String {
    let template = SCRIPTS.get_template(template).expect("the table has every template that is named here");
    template.render(values).expect("every value of a template is given: a test renders each")
}

/// Returns as much of the message as a console should show.
fn shown(message: &str) -> String {
    message.chars().take(MAX_TEXT).collect()
}

fn wait(message: &str, seconds: u32, base: &str) -> String {
    let message = shown(message);
    let pause = seconds.min(MAX_SLEEP);
    fill("wait.ipxe", context! { message, pause, base, claims => claims() })
}

fn leave(message: &str, pause: u32) -> String {
    fill("leave.ipxe", context! { message => shown(message), pause })
}

fn menu(menu: &Menu, base: &str) -> String {
    if !exact(&menu.token) {
        return cannot_carry("the menu's token", base);
    }
    let line = |name, choice, size| context! { name, choice, size };
    let images: Vec<Value> = menu
        .images
        .iter()
        .map(|(image, size)| {
            line(image.to_string(), choice_word(&Choice::Install(image.clone().into())), size.human())
        })
        .collect();
    fill(
        "menu.ipxe",
        context! {
            slot => menu.slot.to_string(),
            images,
            has_disk => menu.has_disk,
            capture => menu.capture.as_ref().map(ToString::to_string),
            default => choice_word(offered_default(menu)),
            timeout => u64::from(menu.timeout) * 1000,
            token => menu.token.as_str(),
            pause => 3,
            base,
            claims => claims(),
        },
    )
}

/// Returns the menu's default, or `Wait` where the menu has no such line.
///
/// iPXE takes the first line for a default that it does not find, and the first line installs something.
fn offered_default(menu: &Menu) -> &Choice {
    let offered = match &menu.default {
        Choice::Install(image) => menu.images.iter().any(|(id, _)| ImageRef::from(id.clone()) == *image),
        Choice::Disk => menu.has_disk,
        Choice::Wait | Choice::Firmware => true,
        // Nobody's disk is copied because nobody answered.
        Choice::Capture => false,
    };
    if offered { &menu.default } else { &Choice::Wait }
}

/// Returns a script that logs in to a target.
fn login(template: &str, disk: &BootDisk, base: &str, captured: Option<&str>) -> String {
    let (user, password) = (&disk.credentials.user, disk.credentials.password.expose());
    let mutual = disk.credentials.mutual.as_ref().map(|(user, secret)| (user.as_str(), secret.expose()));
    let words = [user, password].into_iter().chain(mutual.iter().flat_map(|(user, secret)| [*user, *secret]));
    if !words.into_iter().all(exact) {
        return cannot_carry("the credentials", base);
    }
    let uris: Vec<String> = disk.portals.iter().map(|portal| uri(portal, disk.target.as_str())).collect();
    fill(
        template,
        context! {
            captured,
            slot => disk.slot.to_string(),
            image => disk.image.to_string(),
            key => u64::from(disk.key_seconds) * 1000,
            initiator => disk.initiator.as_str(),
            user,
            password,
            mutual => mutual.map(|(user, password)| context! { user, password }),
            firmware => firmware_word(disk.firmware),
            uris => uris.join(" "),
            pause => 3,
            base,
            claims => claims(),
        },
    )
}

/// Returns `iscsi:SERVER:PROTOCOL:PORT:LUN:TARGET`; the protocol is left out and the LUN, in hex, is 0.
fn uri(portal: &Portal, target: &str) -> String {
    format!("iscsi:{}::{}:0:{target}", portal.0.ip(), portal.0.port())
}

fn firmware_word(firmware: Option<Firmware>) -> &'static str {
    match firmware {
        Some(Firmware::Bios) => "bios",
        Some(Firmware::Uefi) => "uefi",
        None => "any",
    }
}

fn cannot_carry(what: &str, base: &str) -> String {
    wait(&format!("The appliance failed: iPXE cannot carry {what}"), REFUSED_SLEEP, base)
}

/// Returns whether this text is one word that [`harmless`] leaves as it is: what must not be changed must pass here.
fn exact(text: &str) -> bool {
    !text.is_empty() && !text.contains(' ') && harmless(text) == text
}

/// Returns `text` as words that iPXE takes for nothing but words.
///
/// iPXE splits a line at white space and knows no quotes. It gives a meaning to `${…}`, to the words `||`, `&&`, `;`,
/// to `#` and to a hyphen at a word's start: none of these is left.
fn harmless(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(harmless_word).collect();
    words.join(" ")
}

fn harmless_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/()+=@%!?'".contains(c);
    let word: String = word.chars().map(|c| if plain(c) { c } else { '?' }).collect();
    match word.trim_start_matches('-') {
        "" if word.len() == 1 => word,
        rest => "_".repeat(word.len() - rest.len()) + rest,
    }
}

#[cfg(test)]
mod tests;
