//! Where requests live in HTTP: both directions beside each other, so that client and server cannot disagree.
//!
//! Pure: no sockets here. The table is the one at the head of [`super::api`].

use axum::http::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::api::{Adopt, ImportRequest, PromoteRequest, Reply, Request};
use crate::{
    error::{Error, Kind, Result},
    model::{BladeId, Growth, ImageRef},
};

/// Body of `install`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstallBody {
    image: ImageRef,
    #[serde(default)]
    replace: bool,
}

/// Body of `move`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveBody {
    blade: BladeId,
}

/// Body of `publish`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishBody {
    published: bool,
    #[serde(default)]
    unproved: bool,
}

/// Body of `grow`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrowBody {
    size: Growth,
    #[serde(default)]
    dry_run: bool,
}

/// A request as HTTP sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Returns where this request lives.
    pub(super) fn route(&self) -> Route {
        let get = |path: &str| Route { method: Method::GET, path: path.to_owned(), body: Vec::new() };
        match self {
            Self::Status => get("/v1/status"),
            Self::Blades => get("/v1/blades"),
            Self::Images => get("/v1/images"),
            Self::Targets => get("/v1/targets"),
            Self::Plan => get("/v1/plan"),
            Self::Install { slot, image, replace } => {
                let body = InstallBody { image: image.clone(), replace: *replace };
                post(format!("/v1/blades/{slot}/install"), Some(&body))
            }
            Self::Release { slot } => post(format!("/v1/blades/{slot}/release"), NOTHING),
            Self::Move { slot, blade } => {
                post(format!("/v1/blades/{slot}/move"), Some(&MoveBody { blade: *blade }))
            }
            Self::Apply { slot } => post(format!("/v1/blades/{slot}/apply"), NOTHING),
            Self::Import(import) => post("/v1/images".to_owned(), Some(import)),
            Self::ImportProgress { name } => get(&format!("/v1/images/{name}/import")),
            Self::NextProgress { name } => get(&format!("/v1/images/{name}/import/next")),
            Self::Publish { image, published, unproved } => {
                let body = PublishBody { published: *published, unproved: *unproved };
                post(format!("/v1/images/{image}/publish"), Some(&body))
            }
            Self::RemoveImage { image } => {
                Route { method: Method::DELETE, path: format!("/v1/images/{image}"), body: Vec::new() }
            }
            Self::Reload => post("/v1/reload".to_owned(), NOTHING),
            Self::Sessions => get("/v1/sessions"),
            Self::DropSession { slot } => post(format!("/v1/sessions/{slot}/drop"), NOTHING),
            Self::Adopt(adopt) => post("/v1/adopt".to_owned(), Some(adopt)),
            Self::Grow { slot, size, dry_run } => {
                post(format!("/v1/blades/{slot}/grow"), Some(&GrowBody { size: *size, dry_run: *dry_run }))
            }
            Self::Work { image, task } => post(format!("/v1/images/{image}/work"), Some(task)),
            Self::WorkProgress { image } => get(&format!("/v1/images/{image}/work")),
            Self::Cancel { image } => {
                Route { method: Method::DELETE, path: format!("/v1/images/{image}/work"), body: Vec::new() }
            }
            Self::Donors => get("/v1/donors"),
            Self::Image { image } => get(&format!("/v1/images/{image}")),
            Self::DefaultImage { image } => post(format!("/v1/images/{image}/default"), NOTHING),
            Self::Promote(promote) => post("/v1/promote".to_owned(), Some(promote)),
            Self::ImageLog { image, firmware: None } => get(&format!("/v1/images/{image}/log")),
            Self::ImageLog { image, firmware: Some(by) } => {
                get(&format!("/v1/images/{image}/log/{}", by.word()))
            }
        }
    }

    /// Returns the request that lives here.
    ///
    /// # Errors
    /// [`Kind::Missing`] where none does, [`Kind::Invalid`] where its words are wrong.
    pub(super) fn at(method: &Method, path: &str, body: &[u8]) -> Result<Self> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["v1", "status"]) => Ok(Self::Status),
            ("GET", ["v1", "blades"]) => Ok(Self::Blades),
            ("GET", ["v1", "images"]) => Ok(Self::Images),
            ("GET", ["v1", "targets"]) => Ok(Self::Targets),
            ("GET", ["v1", "plan"]) => Ok(Self::Plan),
            ("POST", ["v1", "blades", slot, "install"]) => {
                let (slot, InstallBody { image, replace }) = (slot.parse()?, read(body)?);
                Ok(Self::Install { slot, image, replace })
            }
            ("POST", ["v1", "blades", slot, "release"]) => Ok(Self::Release { slot: slot.parse()? }),
            ("POST", ["v1", "blades", slot, "move"]) => {
                let (slot, MoveBody { blade }) = (slot.parse()?, read(body)?);
                Ok(Self::Move { slot, blade })
            }
            ("POST", ["v1", "blades", slot, "apply"]) => Ok(Self::Apply { slot: slot.parse()? }),
            ("POST", ["v1", "images"]) => read::<ImportRequest>(body).map(Self::Import),
            ("GET", ["v1", "images", name, "import"]) => Ok(Self::ImportProgress { name: name.parse()? }),
            ("GET", ["v1", "images", name, "import", "next"]) => {
                Ok(Self::NextProgress { name: name.parse()? })
            }
            ("POST", ["v1", "images", image, "publish"]) => {
                let (image, PublishBody { published, unproved }) = (image.parse()?, read(body)?);
                Ok(Self::Publish { image, published, unproved })
            }
            ("DELETE", ["v1", "images", image]) => Ok(Self::RemoveImage { image: image.parse()? }),
            ("POST", ["v1", "adopt"]) => read(body).map(Self::Adopt),
            ("POST", ["v1", "reload"]) => Ok(Self::Reload),
            ("GET", ["v1", "sessions"]) => Ok(Self::Sessions),
            ("POST", ["v1", "sessions", slot, "drop"]) => Ok(Self::DropSession { slot: slot.parse()? }),
            ("POST", ["v1", "blades", slot, "grow"]) => {
                let (slot, GrowBody { size, dry_run }) = (slot.parse()?, read(body)?);
                Ok(Self::Grow { slot, size, dry_run })
            }
            ("POST", ["v1", "images", image, "work"]) => {
                Ok(Self::Work { image: image.parse()?, task: read(body)? })
            }
            ("GET", ["v1", "images", image, "work"]) => Ok(Self::WorkProgress { image: image.parse()? }),
            ("DELETE", ["v1", "images", image, "work"]) => Ok(Self::Cancel { image: image.parse()? }),
            ("GET", ["v1", "donors"]) => Ok(Self::Donors),
            ("GET", ["v1", "images", image]) => Ok(Self::Image { image: image.parse()? }),
            ("POST", ["v1", "images", image, "default"]) => Ok(Self::DefaultImage { image: image.parse()? }),
            ("POST", ["v1", "promote"]) => read::<PromoteRequest>(body).map(Self::Promote),
            ("GET", ["v1", "images", image, "log", by @ ..]) if by.len() <= 1 => {
                let firmware = by.first().map(|by| by.parse()).transpose()?;
                Ok(Self::ImageLog { image: image.parse()?, firmware })
            }
            _ => Err(Error::new(
                Kind::Missing,
                format!("there is no request '{method} {}'", path.escape_debug()),
            )),
        }
    }

    /// Returns whether this request changes anything.
    pub fn changes(&self) -> bool {
        match self {
            Self::Status
            | Self::Blades
            | Self::Images
            | Self::Targets
            | Self::Plan
            | Self::ImportProgress { .. }
            | Self::NextProgress { .. }
            | Self::Sessions
            | Self::WorkProgress { .. }
            | Self::Image { .. }
            | Self::ImageLog { .. }
            | Self::Donors => false,
            Self::Install { .. }
            | Self::Release { .. }
            | Self::Move { .. }
            | Self::Apply { .. }
            | Self::Import(_)
            | Self::Publish { .. }
            | Self::RemoveImage { .. }
            | Self::Reload
            | Self::DropSession { .. }
            | Self::DefaultImage { .. }
            | Self::Work { .. }
            | Self::Cancel { .. } => true,
            Self::Grow { dry_run, .. }
            | Self::Adopt(Adopt { dry_run, .. })
            | Self::Promote(PromoteRequest { dry_run, .. }) => !dry_run,
        }
    }

    /// Returns the reply to this request that `bytes` hold.
    ///
    /// A reply does not say what it is, so the request does: an empty list is blades for one and images for another.
    pub(super) fn reply(&self, bytes: &[u8]) -> Result<Reply> {
        /// The one reply that has no type of its own.
        #[derive(Deserialize)]
        struct Accepted {
            message: String,
        }
        match self {
            Self::Status => answer(bytes).map(Reply::Status),
            Self::Blades => answer(bytes).map(Reply::Blades),
            Self::Images => answer(bytes).map(Reply::Images),
            Self::Targets => answer(bytes).map(Reply::Targets),
            Self::Plan
            | Self::Grow { dry_run: true, .. }
            | Self::Adopt(Adopt { dry_run: true, .. })
            | Self::Promote(PromoteRequest { dry_run: true, .. }) => answer(bytes).map(Reply::Plan),
            Self::ImportProgress { .. } | Self::NextProgress { .. } => {
                answer(bytes).map(Reply::ImportProgress)
            }
            Self::Install { .. }
            | Self::Release { .. }
            | Self::Move { .. }
            | Self::Apply { .. }
            | Self::Import(_)
            | Self::Publish { .. }
            | Self::RemoveImage { .. }
            | Self::Reload
            | Self::DropSession { .. }
            | Self::Grow { dry_run: false, .. }
            | Self::Adopt(_)
            | Self::DefaultImage { .. }
            | Self::Promote(_)
            | Self::Work { .. }
            | Self::Cancel { .. } => answer(bytes).map(|Accepted { message }| Reply::Accepted { message }),
            Self::Sessions => answer(bytes).map(Reply::Sessions),
            Self::WorkProgress { .. } => answer(bytes).map(Reply::Work),
            Self::Donors => answer(bytes).map(Reply::Donors),
            Self::Image { .. } => answer(bytes).map(Reply::Image),
            Self::ImageLog { .. } => answer(bytes).map(Reply::ImageLog),
        }
    }
}

/// No body; the type only tells the compiler what is not there.
const NOTHING: Option<&()> = None;

fn post<T: Serialize>(path: String, body: Option<&T>) -> Route {
    let body = body.map(|body| serde_json::to_vec(body).expect("a request is plain data"));
    Route { method: Method::POST, path, body: body.unwrap_or_default() }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| Error::invalid("read the request's body").because(e))
}

fn answer<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::new(Kind::Failed, "read sheathd's answer").because(e))
}

#[cfg(test)]
pub(in crate::control) mod tests {
    use super::*;

    /// Returns one of each request.
    pub(crate) fn each() -> Vec<Request> {
        let slot = || "3".parse().unwrap();
        let name = || "debian13.2".parse().unwrap();
        let image = |text: &str| text.parse::<ImageRef>().unwrap();
        let promotion = |dry_run| PromoteRequest {
            slot: slot(),
            name: name(),
            running: true,
            publish: false,
            dry_run,
            unproved: true,
            freeze: Some("root".into()),
        };
        let source = "https://images.example.org/a b.qcow2".to_owned();
        vec![
            Request::Status,
            Request::Blades,
            Request::Images,
            Request::Targets,
            Request::Plan,
            Request::Install { slot: slot(), image: image("debian13.2"), replace: true },
            Request::Release { slot: slot() },
            Request::Move { slot: slot(), blade: "b-525400123456".parse().unwrap() },
            Request::Apply { slot: slot() },
            Request::Import(ImportRequest {
                name: name(),
                source,
                publish: true,
                sha256: Some("ab".repeat(32)),
                checksum: Some("/srv/SHA256SUMS".to_owned()),
                unproved: true,
            }),
            Request::ImportProgress { name: name() },
            Request::NextProgress { name: name() },
            Request::Publish { image: image("debian13.2@3"), published: true, unproved: true },
            Request::RemoveImage { image: image("debian13.2@3") },
            Request::Reload,
            Request::Sessions,
            Request::DropSession { slot: slot() },
            Request::Grow { slot: slot(), size: "+10GiB".parse().unwrap(), dry_run: false },
            Request::Grow { slot: slot(), size: "40GiB".parse().unwrap(), dry_run: true },
            Request::Image { image: image("debian13.2") },
            Request::DefaultImage { image: image("debian13.2@3") },
            Request::Promote(promotion(true)),
            Request::Promote(promotion(false)),
            Request::Adopt(adopt(true)),
            Request::Adopt(adopt(false)),
            Request::Work { image: image("debian13@3"), task: crate::status::Task::Check },
            Request::WorkProgress { image: image("debian13") },
            Request::Cancel { image: image("debian13") },
            Request::Donors,
            Request::ImageLog { image: image("debian13"), firmware: None },
            Request::ImageLog { image: image("debian13@3"), firmware: Some(crate::model::Firmware::Uefi) },
        ]
    }

    fn adopt(dry_run: bool) -> Adopt {
        let target = "iqn.2003-01.org.linux-iscsi:disk7".parse().unwrap();
        let blade = Some("b-525400123456".parse().unwrap());
        Adopt { target, slot: "3".parse().unwrap(), blade, image: "debian12".parse().unwrap(), dry_run }
    }

    #[test]
    fn each_request_is_found_where_it_lives() {
        for request in each() {
            let Route { method, path, body } = request.route();
            assert_eq!(Request::at(&method, &path, &body).unwrap(), request);
            assert!(method != Method::GET || !request.changes(), "{request:?}: a GET changes nothing");
        }
    }

    #[test]
    fn wrong_words_are_invalid_and_wrong_places_are_missing() {
        let kind = |method, path, body: &str| Request::at(&method, path, body.as_bytes()).unwrap_err().kind();
        assert_eq!(kind(Method::POST, "/v1/blades/0/release", ""), Kind::Invalid);
        assert_eq!(kind(Method::POST, "/v1/blades/3/install", ""), Kind::Invalid);
        assert_eq!(
            kind(Method::POST, "/v1/blades/3/install", r#"{"image":"a","replce":true}"#),
            Kind::Invalid
        );
        assert_eq!(kind(Method::DELETE, "/v1/images/..", ""), Kind::Invalid);
        assert_eq!(kind(Method::GET, "/v1/images/a/log/coreboot", ""), Kind::Invalid);
        assert_eq!(kind(Method::GET, "/v1/images/a/log/bios/uefi", ""), Kind::Missing);
        assert_eq!(kind(Method::POST, "/v1/status", ""), Kind::Missing);
        assert_eq!(kind(Method::GET, "/v1/status/", ""), Kind::Missing);
        assert_eq!(kind(Method::GET, "*", ""), Kind::Missing);
    }

    #[test]
    fn an_empty_list_is_what_was_asked_for() {
        assert_eq!(Request::Images.reply(b"[]").unwrap(), Reply::Images(Vec::new()));
        assert_eq!(Request::Blades.reply(b"[]").unwrap(), Reply::Blades(Vec::new()));
        assert!(Request::Status.reply(b"[]").is_err());
    }
}
