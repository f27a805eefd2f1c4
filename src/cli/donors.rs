//! `sheath donors`: disks of other machines that are plugged in here.

use super::{
    ask,
    human::{self, NONE},
    session::Session,
    table::{FAINT, PLAIN, Table},
};
use crate::{error::Result, observed::Donor};

/// Lists the disks.
pub(super) fn list(session: &mut Session<'_>) -> Result<()> {
    let donors = ask::donors(session.ask)?;
    session.answer(&donors, |donors, session| match donors.is_empty() {
        true => "no disks but the appliance's own\n".into(),
        false => session.table(&table(donors)),
    })
}

fn table(donors: &[Donor]) -> Table {
    let mut table = Table::new(&["DEVICE", "SIZE", "MODEL", "SERIAL", "CONTENT", "IN USE"]).right(1);
    for donor in donors {
        let list = |words: &[String]| match words {
            [] => NONE.into(),
            words => human::tame(&words.join("; ")),
        };
        let text = |text: &Option<String>| text.as_deref().map_or(NONE.into(), human::tame);
        let style = if donor.users.is_empty() { PLAIN } else { FAINT };
        let cells = [
            human::tame(&donor.device.to_string_lossy()),
            donor.size.human(),
            text(&donor.model),
            text(&donor.serial),
            list(&donor.content),
            list(&donor.users),
        ];
        table.row(style, cells);
    }
    table
}
