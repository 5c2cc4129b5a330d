//! The vendor's own books, read in the background: prices by the day, the account's spend by the minute.
//!
//! All of it is on the admin port's thread. When the vendor does not answer, what was known stays in force, the log says once
//! what is missing, and it is asked again later.

mod account;
mod kept;
mod list;
mod pause;
mod reading;

pub(crate) use self::kept::Learned;
pub(super) use self::reading::Reading;
pub(crate) use self::reading::books;
pub use self::reading::check;
