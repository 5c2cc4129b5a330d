//! What may be wrong with the records' file.

use rusqlite::ErrorCode;

/// Why there are no records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// The database cannot be opened or read.
    #[error("the records in {path}: {why}; {}", mend(&**why))]
    Database {
        /// Where it is.
        path: String,
        /// What SQLite says.
        why: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A later version wrote it.
    #[error("the records in {path} were written by a later version of Tollgate; set [records] path to another file")]
    Later {
        /// Where it is.
        path: String,
    },
    /// An earlier version wrote it, and it lacks what is asked for.
    #[error(
        "the records in {path} were written by an earlier version of Tollgate: this one's `tollgate serve` brings them up to date"
    )]
    Earlier {
        /// Where it is.
        path: String,
    },
    /// It has calls that another file has, too.
    #[error("the records in {path} and in {other} are of one gate: name each file once, and no copy of one")]
    Copied {
        /// Where it is.
        path: String,
        /// Where the other is.
        other: String,
    },
    /// More files than can be read as one.
    #[error("at most {most} files of records are read as one; sum up the rest by itself")]
    TooMany {
        /// So many can.
        most: usize,
    },
    /// Another process writes it.
    #[error("the records in {path} are another sidecar's; set [records] path to a file of its own")]
    Taken {
        /// Where it is.
        path: String,
    },
    /// The system refuses a thread or a file.
    #[error("the records cannot be kept: {0}")]
    System(#[from] std::io::Error),
}

/// What to do about what SQLite says.
fn mend(why: &(dyn std::error::Error + Send + Sync + 'static)) -> &'static str {
    match why.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code) {
        Some(ErrorCode::DiskFull) => {
            "make room on its disk: what the budgets have spent is kept there. Nothing that was written is lost"
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "check that this user can write the file and its folder"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "it is no database, or a damaged one: name another file, or bring back a copy"
        }
        _ => "check that the file can be written and is a Tollgate database",
    }
}
