//! Text of the administrator's that differs from blade to blade: a template, checked when the configuration is read.
//!
//! The language is Jinja's. A name that does not exist is a fault and never an empty text, and comments are written
//! `{## … ##}`, because `{#` is in many a shell's `${#list}`.

use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior, context, syntax::SyntaxConfig};

use super::{BladeId, Hostname, ImageId, Slot};
use crate::error::{Error, Result};

/// The only template of its environment.
const NAME: &str = "template";

/// What a template may ask for. Nothing in it needs quoting in YAML or in a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables {
    /// The blade's id, such as `b-525400123456`.
    pub blade: String,
    /// The MAC address that it boots from.
    pub mac: String,
    /// Its slot, a number.
    pub slot: u16,
    /// Its host name.
    pub hostname: String,
    /// The family of its image.
    pub image: String,
    /// The version of its image, a number.
    pub version: u32,
}

impl Variables {
    /// Returns what this blade's templates are filled with.
    pub fn new(blade: BladeId, slot: Slot, hostname: &Hostname, image: &ImageId) -> Self {
        Self {
            blade: blade.to_string(),
            mac: blade.0.to_string(),
            slot: slot.number(),
            hostname: hostname.to_string(),
            image: image.name.to_string(),
            version: image.version.number(),
        }
    }

    /// Returns some blade's, to try a template with.
    fn sample() -> Self {
        Self {
            blade: "b-525400123456".into(),
            mac: "52:54:00:12:34:56".into(),
            slot: 1,
            hostname: "blade1".into(),
            image: "debian13".into(),
            version: 1,
        }
    }
}

/// A template that was filled once without a fault.
#[derive(Clone)]
pub struct Template {
    text: String,
    environment: Arc<Environment<'static>>,
}

impl Template {
    /// Returns the template of this text.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) with the line, for words that are not the language's and for names
    /// that do not exist.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax =
            SyntaxConfig::builder().comment_delimiters("{##", "##}").keep_trailing_newline(true).build();
        environment.set_syntax(syntax.expect("no two delimiters are alike"));
        environment.add_template_owned(NAME, text.clone()).map_err(|e| fault(&e))?;
        let template = Self { text, environment: Arc::new(environment) };
        template.fill(&Variables::sample())?;
        Ok(template)
    }

    /// Returns the text for one blade.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where the fault is in a part that only some blades come to.
    pub fn fill(&self, variables: &Variables) -> Result<String> {
        let template = self.environment.get_template(NAME).expect("it was added when it was made");
        let Variables { blade, mac, slot, hostname, image, version } = variables;
        template.render(context! { blade, mac, slot, hostname, image, version }).map_err(|e| fault(&e))
    }
}

fn fault(error: &minijinja::Error) -> Error {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
    Error::invalid(format!("{line}{}{detail}", error.kind()))
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Template {}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may hold what is nobody else's business.
        write!(f, "Template({} bytes)", self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String> {
        let hostname: Hostname = "web3".parse().unwrap();
        let (blade, slot) = ("52:54:00:00:00:03".parse().unwrap(), "3".parse().unwrap());
        Template::new(text)?.fill(&Variables::new(blade, slot, &hostname, &"debian13@2".parse().unwrap()))
    }

    #[test]
    fn each_name_is_the_blades_own() {
        let text = "{{ blade }} {{ mac }} {{ slot }} {{ hostname }} {{ image }} {{ version }}\n";
        assert_eq!(filled(text).unwrap(), "b-525400000003 52:54:00:00:00:03 3 web3 debian13 2\n");
        let text = "rack: {% if slot <= 2 %}left{% else %}right{% endif %}, mtu: {{ 1500 + slot }}";
        assert_eq!(filled(text).unwrap(), "rack: right, mtu: 1503");
    }

    #[test]
    fn text_without_braces_stays_as_it_is() {
        let text =
            "runcmd:\n  - [ sh, -c, 'a=(x y); echo ${#a} $((1+1)) %{http_code} 50 %' ]\n{## not shown ##}";
        assert_eq!(filled(text).unwrap(), text.replace("{## not shown ##}", ""));
    }

    #[test]
    fn a_fault_is_told_with_its_line_and_no_name_is_ever_empty() {
        let fault = |text| filled(text).unwrap_err().to_string();
        assert!(fault("a: 1\nb: {{ hostnam }}\n").starts_with("line 2: undefined"), "{}", fault("{{ x }}"));
        assert!(fault("a\n{% if slot %}").contains("line 2: syntax error"), "{}", fault("{% if slot %}"));
        assert!(filled("{{ slot | nonsense }}").is_err());
        // A part that only slot 3 comes to.
        assert!(Template::new("{% if slot == 3 %}{{ nothing }}{% endif %}").is_ok());
        assert!(filled("{% if slot == 3 %}{{ nothing }}{% endif %}").is_err());
    }
}
