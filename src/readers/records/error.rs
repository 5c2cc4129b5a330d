//! What may be wrong with the records' file.

/// Why there are no records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// The database cannot be opened or read.
    #[error("the records in {path}: {why}; check that the file can be written and is a Tollgate database")]
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
